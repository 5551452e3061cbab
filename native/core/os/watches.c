/* System calls: waiting for what the kernel reports; see os_watches.h. */
#define _GNU_SOURCE
#include "os/os_watches.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define UNSHARE_TABLE 2u /* CLOSE_RANGE_UNSHARE */
#define PATH_BYTES 4160
#define TEXT_BYTES 4096

/* It is blocked in the thread and read there. If it ever went astray, ignoring is its default. */
#define END_SIGNAL SIGURG

static int add(os_watches *w, int descriptor, short events) {
    if (descriptor < 0) return -errno;
    if (w->count == OS_WATCHES_MOST) {
        close(descriptor);
        return -E2BIG;
    }
    w->all[w->count].descriptor = descriptor;
    w->all[w->count++].events = events;
    return 0;
}

/* Copies none of the table, as it closes all of it. */
int os_own_descriptors(void) {
    return syscall(SYS_close_range, 0, ~0u, UNSHARE_TABLE) < 0 ? -errno : 0;
}

int os_watches_begin(os_watches *w) {
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, END_SIGNAL);
    w->count = 0;
    w->changes = -1;
    const int refused = os_own_descriptors();
    if (refused) return refused;
    return add(w, signalfd(-1, &end, SFD_CLOEXEC | SFD_NONBLOCK), POLLIN);
}

static int open_in(const char *directory, const char *file, int flags) {
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", directory, file) >= (int)sizeof path) return -ENAMETOOLONG;
    const int descriptor = open(path, flags | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int os_watch_v1(os_watches *w, const char *directory, const char *file, const char *argument) {
    const int control = open_in(directory, "cgroup.event_control", O_WRONLY);
    if (control < 0) return control;
    const int watched = open_in(directory, file, O_RDONLY);
    int result = watched;
    if (watched >= 0) {
        const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        char text[96];
        const int length = snprintf(text, sizeof text, "%d %d %s", event, watched, argument);
        result = event < 0 || write(control, text, (size_t)length) < 0 ? -errno : 0;
        if (result == 0) result = add(w, event, POLLIN);
        else if (event >= 0) close(event);
        close(watched); /* the kernel keeps what it needs */
    }
    close(control);
    return result;
}

int os_watch_notified(os_watches *w, const char *directory, const char *file) {
    char text[TEXT_BYTES];
    const int watched = open_in(directory, file, O_RDONLY);
    if (watched < 0) return watched;
    if (pread(watched, text, sizeof text, 0) < 0) { /* reports what changes from now on */
        const int error = errno;
        close(watched);
        return -error;
    }
    return add(w, watched, POLLPRI);
}

int os_watch_written(os_watches *w, const char *path) {
    if (w->changes < 0) {
        const int changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        const int result = add(w, changes, POLLIN);
        if (result < 0) return result;
        w->changes = changes;
    }
    return inotify_add_watch(w->changes, path, IN_MODIFY) < 0 ? -errno : 0;
}

/* Takes what a descriptor reports, so that it is reported once. */
static void take_report(int descriptor, short events) {
    _Alignas(8) char text[TEXT_BYTES];
    ssize_t length;
    if (events == POLLPRI) length = pread(descriptor, text, sizeof text, 0);
    else length = read(descriptor, text, sizeof text);
    (void)length;
}

int os_watches_wait(os_watches *w) {
    struct pollfd polled[OS_WATCHES_MOST];
    for (size_t i = 0; i < w->count; i++)
        polled[i] = (struct pollfd){.fd = w->all[i].descriptor, .events = w->all[i].events};
    int ready;
    do ready = poll(polled, w->count, -1);
    while (ready < 0 && errno == EINTR);
    if (ready < 0) return -errno;
    if (polled[0].revents) return 0;
    for (size_t i = 1; i < w->count; i++) {
        /* POLLERR is all that a removed cgroup reports, for ever. The caretaker finds the process's new one. */
        if (polled[i].revents & (POLLHUP | POLLNVAL)) return -ENODEV;
        if (polled[i].revents) take_report(polled[i].fd, polled[i].events);
    }
    return 1;
}

void os_watches_end(pthread_t thread) { pthread_kill(thread, END_SIGNAL); }
