/* What the kernel reports through descriptors, for a thread that does nothing but wait for it.
 *
 * The thread has a table of descriptors of its own. The program can neither close nor reuse the numbers in it,
 * and sees none of them; a child does not inherit them. In exchange the thread must use no other descriptor of
 * the process. */
#ifndef VRANGE_OS_WATCHES_H
#define VRANGE_OS_WATCHES_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define OS_WATCHES_MOST 66 /* two a cgroup, and two more */

typedef struct {
    struct {
        int descriptor;
        short events;
    } all[OS_WATCHES_MOST]; /* the first is for os_watches_end */
    size_t count;
    int changes; /* an inotify descriptor, or -1 */
} os_watches;

/* Gives the calling thread its own, empty table of descriptors, for good. 0 or -errno. */
int os_own_descriptors(void);

/* Does so. The other functions follow in the same thread. All return 0 or -errno. */
int os_watches_begin(os_watches *w);
/* cgroup v1: reports what `file` and `argument` mean to the file cgroup.event_control in `directory`. */
int os_watch_v1(os_watches *w, const char *directory, const char *file, const char *argument);
/* A file that the kernel itself notifies of changes, as memory.events of cgroup v2. */
int os_watch_notified(os_watches *w, const char *directory, const char *file);
/* Reports when a process writes the file. */
int os_watch_written(os_watches *w, const char *path);

/* Waits until something is reported, and takes all that is. Returns 1, or 0 after os_watches_end, or -errno. */
int os_watches_wait(os_watches *w);

/* Called by another thread, also before os_watches_begin. */
void os_watches_end(pthread_t thread);

#endif
