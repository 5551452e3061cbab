/* Descriptors that are kept open in a process whose other code may close them.
 *
 * A descriptor's number does not identify a file. A process that becomes a daemon closes every descriptor,
 * and its own files then get the same numbers. So vrange notes each kept descriptor with the device and
 * the inode of the file that it was opened for, and compares them before each use. A descriptor that no
 * longer matches is neither read nor written nor closed. Each userfaultfd has an inode of its own since
 * Linux 5.12.
 *
 * Between the check and the use another thread may still close the number and open its own file under it;
 * that window is some hundred nanoseconds. Reads are therefore checked again afterwards, and an ioctl of
 * userfaultfd does nothing to other files. A close can't be made conditional, so it has to be rare. Whatever
 * is read again and again stays open (proc_files.c), and vrange's own threads, of which the program does not
 * know, open and close everything else in a table of descriptors of their own (os_apart.h). */
#ifndef VRANGE_OS_KEPT_DESCRIPTORS_H
#define VRANGE_OS_KEPT_DESCRIPTORS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Written by one thread at a time. Other threads may read it meanwhile; a mixture of two states matches no
 * file. */
typedef struct {
    _Atomic int number; /* -1: no descriptor */
    _Atomic int flags;  /* with which it was opened; -1: unknown */
    _Atomic uint64_t device, inode;
} os_held;

/* Notes a descriptor that has just been opened, for the checks below. `path` is where: other code may have
 * closed the number already and opened a file of its own under it, which is never noted as ours. NULL if there
 * is no path. */
void os_note(int descriptor, const char *path, os_held *held);

/* Copies what is noted, while other threads may read the copy. */
void os_store(const os_held *opened, os_held *held);

/* Keeps a descriptor that was noted in `opened`, and moves it above the numbers that programs close in a loop,
 * if the process may have such numbers. */
void os_hold(os_held *opened, os_held *held);

/* Opens a userfaultfd and notes it. */
int os_userfault_open(os_held *held);

/* Whether the number still refers to the file that was opened. Async-signal-safe. */
bool os_is_held(const os_held *held);

/* Closes the descriptor if it is still ours, and forgets it. Other code may have opened the same file, such as
 * /proc/meminfo, so the flags have to be the same as well. Async-signal-safe. */
void os_let_go(os_held *held);

/* Like os_read_at. If the descriptor was lost, reads from the path; -ESTALE if the path leads to another
 * file now. Async-signal-safe. */
int os_read_held_at(const os_held *held, const char *path, void *to, size_t bytes, uint64_t offset);

/* A file that is read again and again, and reopened if its descriptor was lost. An open descriptor stays
 * in use if the path leads nowhere any more, as after chroot. Where RLIMIT_NOFILE is small, each read opens the
 * file and closes it: the descriptors are the program's. Must be zeroed before use. */
typedef struct {
    char *path; /* NULL: no file */
    os_held held;
} os_kept;

/* -errno if the file can't be opened. It is kept all the same, and each read tries to open it again. */
int os_keep(const char *path, os_kept *file);
void os_forget(os_kept *file);
static inline bool os_is_kept(const os_kept *file) { return file->path != NULL; }

/* Like os_read_text. */
int os_kept_text(os_kept *file, char *text, size_t bytes);

#endif
