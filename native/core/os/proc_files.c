/* System calls: files of /proc that stay open; see os_proc_files.h. */
#define _GNU_SOURCE
#include "os/os_proc_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

#include "os/os.h"
#include "os/os_kept_descriptors.h"

#define MOST_SHARE 4 /* descriptors above this share of RLIMIT_NOFILE are for the program */

typedef int (*user)(int descriptor, void *context);

static struct {
    const char *path;
    _Atomic bool is_opening; /* not a mutex, as a signal handler asks as well */
    _Atomic int process;   /* a child that was made without fork handlers must not use its parent's */
    os_held held;
} files[] = {
    [OS_MEMINFO] = {.path = "/proc/meminfo", .held = {.number = -1}},
    [OS_STATM] = {.path = "/proc/self/statm", .held = {.number = -1}},
    [OS_PAGEMAP] = {.path = "/proc/self/pagemap", .held = {.number = -1}},
};

static int use_held(const os_held *held, user use, void *context) {
    if (!os_is_held(held)) return -EBADF;
    const int result = use(atomic_load(&held->number), context);
    return os_is_held(held) ? result : -EBADF;
}

static int open_file(const char *path, os_held *held) {
    int descriptor = -1;
    const int result = os_open_to_read(path, &descriptor);
    if (result < 0) return result;
    os_note(descriptor, path, held);
    return atomic_load(&held->number) < 0 ? -EBADF : 0;
}

static bool may_stay_open(const os_held *held) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return false;
    return (rlim_t)atomic_load(&held->number) < limit.rlim_cur / MOST_SHARE;
}

/* Opens the file and keeps it, unless another thread is doing so or the process has few descriptors. */
static int use_opened(os_proc_file which, user use, void *context) {
    os_held opened;
    int result = open_file(files[which].path, &opened);
    if (result < 0) return result;
    const bool is_kept = may_stay_open(&opened) && !atomic_exchange(&files[which].is_opening, true);
    if (is_kept) {
        os_store(&opened, &files[which].held);
        atomic_store(&files[which].process, getpid());
        atomic_store(&files[which].is_opening, false);
    }
    result = use_held(&opened, use, context);
    if (!is_kept) os_let_go(&opened);
    return result;
}

int os_proc_use(os_proc_file which, user use, void *context) {
    int result = -EBADF;
    if (atomic_load(&files[which].process) == getpid()) result = use_held(&files[which].held, use, context);
    return result == -EBADF ? use_opened(which, use, context) : result;
}

typedef struct {
    char *text;
    size_t bytes;
} buffer;

static int read_into(int descriptor, void *context) {
    const buffer *to = context;
    return os_read_text(descriptor, to->text, to->bytes);
}

int os_proc_text(os_proc_file which, char *text, size_t bytes) {
    buffer to = {text, bytes};
    return os_proc_use(which, read_into, &to);
}

/* No other thread can close or open anything in the child yet. */
void os_proc_after_fork(void) {
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        os_let_go(&files[i].held);
        atomic_store(&files[i].is_opening, false);
    }
}
