/* Descriptors that are kept, in a process whose other code may close them.
 *
 * A descriptor's number is no identity. A process that becomes a daemon closes every descriptor it
 * has, and its own files then get the numbers. So a kept descriptor is noted with the device and the
 * inode of what it was opened for, and checked for them before each use: what is not ours any more is
 * neither read nor written nor closed. Each userfaultfd has an inode of its own since Linux 5.12.
 *
 * Between the check and the use another thread may still close the number and open its own; that is
 * some hundred nanoseconds. Where that leads is checked again after reading, and an ioctl of
 * userfaultfd does nothing to other files. */
#ifndef VRANGE_OS_HELD_H
#define VRANGE_OS_HELD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Written by one thread at a time. Others may look meanwhile: a mixture of two is held by nobody. */
typedef struct {
    _Atomic int number; /* -1: nothing */
    _Atomic uint64_t device, inode;
} os_held;

/* Notes what has just been opened, for the checks below. */
void os_note(int descriptor, os_held *held);

/* The same, and keeps it: out of the way of numbers that programs go through,
 * where there is room above them. */
void os_hold(int descriptor, os_held *held);

/* Whether the number is still that of what was opened. Async-signal-safe. */
bool os_is_held(const os_held *held);

/* Closes it if it is still ours, and forgets it. Async-signal-safe. */
void os_let_go(os_held *held);

/* As os_read_at; from the path where the descriptor was lost: -ESTALE if that leads to another file now.
 * Async-signal-safe. */
int os_read_held_at(const os_held *held, const char *path, void *to, size_t bytes, uint64_t offset);

/* A file that is read again and again, and opened again where its descriptor was lost. What was opened
 * goes on to be read where the path leads nowhere any more, as after chroot. Has to be zeroed before. */
typedef struct {
    char *path; /* NULL: no file */
    os_held held;
} os_kept;

/* -errno where it can't be opened. It is kept all the same, and tried again at each reading. */
int os_keep(const char *path, os_kept *file);
void os_forget(os_kept *file);
static inline bool os_is_kept(const os_kept *file) { return file->path != NULL; }

/* As os_read_text and os_read_number. */
int os_kept_text(os_kept *file, char *text, size_t bytes);
int os_kept_number(os_kept *file, uint64_t *value);

#endif
