/* System calls: descriptors that are kept open; see os_kept_descriptors.h. */
#define _GNU_SOURCE
#include "os/os_kept_descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"
#include "os/os_opening.h"
#include "vrange.h"

#define NUMBERS_OF_OTHERS 512 /* programs that close "all" descriptors often stop at 256 */
#define FEW_DESCRIPTORS 256   /* a program whose RLIMIT_NOFILE is below this may need them all */

static bool is_at(const char *path, const struct stat *opened) {
    struct stat found;
    return stat(path, &found) == 0 && found.st_dev == opened->st_dev && found.st_ino == opened->st_ino;
}

void os_note(int descriptor, const char *path, os_held *held) {
    struct stat found;
    atomic_store(&held->number, -1);
    if (descriptor < 0) return;
    /* Other code has closed it already. If the file at the path has changed instead, a descriptor is lost. */
    if (fstat(descriptor, &found) < 0 || (path && !is_at(path, &found))) return;
    atomic_store(&held->device, (uint64_t)found.st_dev);
    atomic_store(&held->inode, (uint64_t)found.st_ino);
    atomic_store(&held->flags, fcntl(descriptor, F_GETFL));
    atomic_store(&held->number, descriptor);
}

bool os_is_held(const os_held *held) {
    const int number = atomic_load(&held->number);
    struct stat found;
    return number >= 0 && fstat(number, &found) == 0 &&
           (uint64_t)found.st_dev == atomic_load(&held->device) &&
           (uint64_t)found.st_ino == atomic_load(&held->inode);
}

static bool has_flags(const os_held *held) {
    const int number = atomic_load(&held->number), flags = atomic_load(&held->flags);
    return flags < 0 || (fcntl(number, F_GETFL) == flags && fcntl(number, F_GETFD) == FD_CLOEXEC);
}

void os_let_go(os_held *held) {
    if (os_is_held(held) && has_flags(held)) close(atomic_load(&held->number));
    atomic_store(&held->number, -1);
}

static void store(os_held *to, int number, const os_held *file) {
    atomic_store(&to->number, -1); /* a mixture of two files must not match */
    atomic_store(&to->device, atomic_load(&file->device));
    atomic_store(&to->inode, atomic_load(&file->inode));
    atomic_store(&to->flags, atomic_load(&file->flags));
    atomic_store(&to->number, number);
}

void os_store(const os_held *opened, os_held *held) { store(held, atomic_load(&opened->number), opened); }

void os_hold(os_held *opened, os_held *held) {
    const int number = atomic_load(&opened->number);
    /* -1 with EINVAL: RLIMIT_NOFILE does not allow such a number. */
    const int above = number < NUMBERS_OF_OTHERS ? fcntl(number, F_DUPFD_CLOEXEC, NUMBERS_OF_OTHERS) : -1;
    os_held moved = {.number = -1};
    if (above >= 0) store(&moved, above, opened);
    /* Otherwise another thread is closing and opening descriptors right now: leaking one of ours is better than
     * closing one of its own. */
    const bool is_moved = above >= 0 && os_is_held(&moved);
    store(held, is_moved ? above : number, opened);
    if (is_moved) os_let_go(opened);
}

static int open_file(os_kept *file) {
    int descriptor = -1;
    int result = os_open_to_read(file->path, &descriptor);
    if (result < 0) return result;
    os_note(descriptor, file->path, &file->held);
    return atomic_load(&file->held.number) < 0 ? -EBADF : 0;
}

static bool may_stay_open(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= FEW_DESCRIPTORS;
}

int os_keep(const char *path, os_kept *file) {
    *file = (os_kept){.path = NULL, .held = {.number = -1}};
    if (!path) return -ENOENT;
    file->path = strdup(path);
    const int result = file->path ? open_file(file) : -ENOMEM;
    if (result == 0 && !may_stay_open()) os_let_go(&file->held);
    return result;
}

void os_forget(os_kept *file) {
    if (!file->path) return;
    os_let_go(&file->held);
    free(file->path);
    file->path = NULL;
}

static int read_held(os_kept *file, char *text, size_t bytes) {
    if (!os_is_held(&file->held)) return -EBADF;
    int result = os_read_text(atomic_load(&file->held.number), text, bytes);
    return result < 0 || os_is_held(&file->held) ? result : -EBADF;
}

int os_kept_text(os_kept *file, char *text, size_t bytes) {
    if (!file->path) return -ENOENT;
    const int first = read_held(file, text, bytes);
    if (first >= 0) return first;
    /* Other code closed it, or few descriptors are allowed; or ENODEV: its cgroup was removed. */
    os_kept again = {.path = file->path};
    const int opened = open_file(&again);
    if (opened < 0) return first == -EBADF ? opened : first;
    const int result = read_held(&again, text, bytes);
    os_let_go(&file->held);
    if (may_stay_open()) os_store(&again.held, &file->held);
    else os_let_go(&again.held);
    return result;
}

int os_read_held_at(const os_held *held, const char *path, void *to, size_t bytes, uint64_t offset) {
    if (os_is_held(held)) {
        const int result = os_read_at(atomic_load(&held->number), to, bytes, offset);
        if (os_is_held(held)) return result;
    }
    const int again = os_open_file(path, O_RDONLY | O_NONBLOCK, 0);
    if (again < 0) return -errno;
    os_held fresh;
    os_note(again, path, &fresh);
    int result = -ESTALE;
    if (atomic_load(&fresh.device) == held->device && atomic_load(&fresh.inode) == held->inode) {
        result = os_read_at(again, to, bytes, offset);
        if (!os_is_held(&fresh)) result = -EBADF;
    }
    os_let_go(&fresh);
    return result;
}

/* ---- for Python -------------------------------------------------------------------------------- */

int vrange_descriptor_note(int opened, vrange_descriptor *out) {
    os_held held;
    const int number = os_above_standard(opened);
    if (number < 0) return -errno;
    os_note(number, NULL, &held);
    if (atomic_load(&held.number) < 0) return -EBADF;
    *out = (vrange_descriptor){number, atomic_load(&held.device), atomic_load(&held.inode)};
    return 0;
}

static os_held noted(const vrange_descriptor *d) {
    return (os_held){.number = d->number, .flags = -1, .device = d->device, .inode = d->inode};
}

int vrange_descriptor_is_ours(const vrange_descriptor *descriptor) {
    const os_held held = noted(descriptor);
    return os_is_held(&held);
}

void vrange_descriptor_close(const vrange_descriptor *descriptor) {
    os_held held = noted(descriptor);
    os_let_go(&held);
}
