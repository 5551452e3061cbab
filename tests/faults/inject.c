/* Makes one system call of vrange fail: preloaded, and told by inject_arm which one.
 *
 * Calls are counted that libvrange or the extension makes; those of Python, NumPy and the C library itself are
 * left alone. The Nth call fails with an error that its manual page names, either only that one, or also every
 * later call of the same function, as when a sandbox's filter begins to refuse it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define OBJECTS_MOST 4

static struct {
    uintptr_t from, to;
} ours[OBJECTS_MOST];
static size_t objects;

static _Atomic long left = -1; /* calls until one fails; negative: not armed */
static _Atomic long counted;
static _Atomic bool armed, goes_on;
static _Atomic unsigned which; /* chooses among a function's errors */
static const char *_Atomic failed;
static _Atomic int failed_error;

static int note_object(struct dl_phdr_info *info, size_t bytes, void *unused) {
    (void)bytes, (void)unused;
#ifdef THE_PROGRAM_IS_OURS
    if (info->dlpi_name[0]) return 0;
#else
    const char *name = strrchr(info->dlpi_name, '/');
    if (!name || (!strstr(name, "/libvrange.so") && !strstr(name, "/_native"))) return 0;
#endif
    for (int i = 0; i < info->dlpi_phnum && objects < OBJECTS_MOST; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        ours[objects].from = info->dlpi_addr + part->p_vaddr;
        ours[objects++].to = info->dlpi_addr + part->p_vaddr + part->p_memsz;
    }
    return 0;
}

/* Once vrange is imported. Returns how many of its objects were found. */
int inject_find(void) {
    objects = 0;
    dl_iterate_phdr(note_object, NULL);
    return (int)objects;
}

void inject_arm(long nth, bool stays, unsigned choice) {
    atomic_store(&counted, 0);
    atomic_store(&failed, NULL);
    atomic_store(&goes_on, stays);
    atomic_store(&which, choice);
    atomic_store(&left, nth);
    atomic_store(&armed, true);
}

/* Returns how many calls there were. */
long inject_disarm(void) {
    atomic_store(&armed, false);
    return atomic_load(&counted);
}

/* The function that failed, or NULL, and how. */
const char *inject_failed(int *error) {
    *error = atomic_load(&failed_error);
    return atomic_load(&failed);
}

static bool is_ours(const void *caller) {
    for (size_t i = 0; i < objects; i++)
        if ((uintptr_t)caller >= ours[i].from && (uintptr_t)caller < ours[i].to) return true;
    return false;
}

/* No kernel interrupts every call. */
static bool goes_on_failing(const char *before, const char *function) {
    return atomic_load(&goes_on) && atomic_load(&failed_error) != EINTR && strcmp(before, function) == 0;
}

/* Returns the error with which a call has to fail, or 0. */
static int fails(const void *caller, const char *function, const int *errors, size_t count) {
    if (!atomic_load(&armed) || !is_ours(caller)) return 0;
    atomic_fetch_add(&counted, 1);
    const char *before = atomic_load(&failed);
    if (before) return goes_on_failing(before, function) ? atomic_load(&failed_error) : 0;
    if (atomic_fetch_sub(&left, 1) != 1) return 0;
    atomic_store(&failed_error, errors[atomic_load(&which) % count]);
    atomic_store(&failed, function);
    return atomic_load(&failed_error);
}

#define CALLER __builtin_return_address(0)
#define ERRORS(...) ((const int[]){__VA_ARGS__}), sizeof((const int[]){__VA_ARGS__}) / sizeof(int)
#define REAL(name) ((__typeof__(&name))next(#name))

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Defines a function that returns -1 and sets errno. */
#define REPLACE(result, name, parameters, arguments, value, ...)     \
    result name parameters {                                         \
        static __typeof__(&name) real;                               \
        const int error = fails(CALLER, #name, ERRORS(__VA_ARGS__)); \
        if (error) {                                                 \
            errno = error;                                           \
            return value;                                            \
        }                                                            \
        if (!real) real = REAL(name);                                \
        return real arguments;                                       \
    }

REPLACE(int, madvise, (void *at, size_t bytes, int advice), (at, bytes, advice), -1, EPERM, ENOMEM, EINVAL)
REPLACE(void *, mmap, (void *at, size_t bytes, int rights, int flags, int file, off_t from),
        (at, bytes, rights, flags, file, from), MAP_FAILED, ENOMEM, EPERM)
REPLACE(int, munmap, (void *at, size_t bytes), (at, bytes), -1, ENOMEM)
REPLACE(int, mprotect, (void *at, size_t bytes, int rights), (at, bytes, rights), -1, ENOMEM, EACCES)
REPLACE(int, mincore, (void *at, size_t bytes, unsigned char *pages), (at, bytes, pages), -1, EPERM, ENOMEM)
REPLACE(int, fstat, (int file, struct stat *out), (file, out), -1, EACCES, ENOMEM)
REPLACE(int, stat, (const char *path, struct stat *out), (path, out), -1, ENOENT, EACCES)
REPLACE(int, lstat, (const char *path, struct stat *out), (path, out), -1, ENOENT, EACCES)
REPLACE(int, ftruncate, (int file, off_t bytes), (file, bytes), -1, ENOSPC, EPERM)
REPLACE(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, EACCES, ENOSPC)
REPLACE(int, unlink, (const char *path), (path), -1, EACCES, EROFS)
REPLACE(ssize_t, pread, (int file, void *to, size_t bytes, off_t from), (file, to, bytes, from), -1, EIO, EACCES, EINTR)
REPLACE(ssize_t, pwrite, (int file, const void *out, size_t bytes, off_t to), (file, out, bytes, to), -1, ENOSPC, EIO,
        EINTR)
REPLACE(ssize_t, read, (int file, void *to, size_t bytes), (file, to, bytes), -1, EIO, EINTR, EAGAIN)
REPLACE(ssize_t, write, (int file, const void *out, size_t bytes), (file, out, bytes), -1, EIO, EINTR, EAGAIN)
REPLACE(ssize_t, process_vm_readv,
        (pid_t process, const struct iovec *to, unsigned long to_count, const struct iovec *from, unsigned long from_count,
         unsigned long flags),
        (process, to, to_count, from, from_count, flags), -1, EPERM, ENOMEM, ESRCH)
REPLACE(int, fallocate, (int file, int mode, off_t from, off_t bytes), (file, mode, from, bytes), -1, ENOSPC, EINTR,
        EOPNOTSUPP)
REPLACE(int, fstatfs, (int file, struct statfs *out), (file, out), -1, ENOSYS, EIO)
REPLACE(int, eventfd, (unsigned count, int flags), (count, flags), -1, EMFILE, ENOMEM)
REPLACE(int, signalfd, (int file, const sigset_t *signals, int flags), (file, signals, flags), -1, EMFILE, ENOMEM)
REPLACE(int, inotify_init1, (int flags), (flags), -1, EMFILE, ENOSYS)
REPLACE(int, inotify_add_watch, (int file, const char *path, uint32_t what), (file, path, what), -1, ENOSPC, EACCES)
REPLACE(int, poll, (struct pollfd * files, nfds_t count, int milliseconds), (files, count, milliseconds), -1, ENOMEM,
        EINTR)
REPLACE(pid_t, waitpid, (pid_t process, int *status, int options), (process, status, options), -1, EINTR, ECHILD)
REPLACE(ssize_t, getrandom, (void *to, size_t bytes, unsigned flags), (to, bytes, flags), -1, ENOSYS, EAGAIN)
REPLACE(int, getrlimit, (__rlimit_resource_t resource, struct rlimit *out), (resource, out), -1, EPERM)
REPLACE(int, pthread_getattr_np, (pthread_t thread, pthread_attr_t *out), (thread, out), ENOMEM, ENOMEM)
REPLACE(char *, strdup, (const char *text), (text), NULL, ENOMEM)
REPLACE(FILE *, open_memstream, (char **text, size_t *bytes), (text, bytes), NULL, ENOMEM)
REPLACE(int, sigaction, (int number, const struct sigaction *action, struct sigaction *before),
        (number, action, before), -1, EINVAL)
REPLACE(int, sigaltstack, (const stack_t *stack, stack_t *before), (stack, before), -1, EPERM, ENOMEM)
REPLACE(int, pthread_create,
        (pthread_t * thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument),
        (thread, attributes, function, argument), EAGAIN, EAGAIN)

/* glibc's own names for them: to look for the next malloc may allocate. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *before, size_t bytes);

#define ALLOCATE(name, parameters, arguments)       \
    void *name parameters {                         \
        if (fails(CALLER, #name, ERRORS(ENOMEM))) { \
            errno = ENOMEM;                         \
            return NULL;                            \
        }                                           \
        return __libc_##name arguments;             \
    }

#ifndef SYSTEM_CALLS_ONLY /* vrange's malloc doesn't serve where another library does */
ALLOCATE(malloc, (size_t bytes), (bytes))
ALLOCATE(calloc, (size_t count, size_t bytes), (count, bytes))
ALLOCATE(realloc, (void *before, size_t bytes), (before, bytes))
#endif

/* The kernel closes the file also where it returns an error. */
int close(int file) {
    static __typeof__(&close) real;
    if (!real) real = REAL(close);
    const int result = real(file), error = fails(CALLER, "close", ERRORS(EINTR, EIO));
    if (error) errno = error;
    return error ? -1 : result;
}

int prctl(int option, ...) {
    unsigned long a[4];
    va_list list;
    va_start(list, option);
    for (int i = 0; i < 4; i++) a[i] = va_arg(list, unsigned long);
    va_end(list);
    const int error = fails(CALLER, "prctl", ERRORS(EPERM, EINVAL));
    if (error) {
        errno = error;
        return -1;
    }
    return REAL(prctl)(option, a[0], a[1], a[2], a[3]);
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    const int error = fails(CALLER, "open", ERRORS(EMFILE, ENOENT, EACCES));
    if (error) {
        errno = error;
        return -1;
    }
    return REAL(open)(path, flags, mode);
}

int ioctl(int file, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    const int error = fails(CALLER, "ioctl", ERRORS(EPERM, ENOMEM, EINVAL));
    if (error) {
        errno = error;
        return -1;
    }
    return ((int (*)(int, unsigned long, ...))next("ioctl"))(file, request, argument);
}

int fcntl(int file, int command, ...) {
    va_list list;
    va_start(list, command);
    const long argument = va_arg(list, long);
    va_end(list);
    const int error = fails(CALLER, "fcntl", ERRORS(EINVAL, EMFILE));
    if (error) {
        errno = error;
        return -1;
    }
    return REAL(fcntl)(file, command, argument);
}

void *mremap(void *before, size_t bytes_before, size_t bytes, int flags, ...) {
    va_list list;
    va_start(list, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(list, void *) : NULL;
    va_end(list);
    const int error = fails(CALLER, "mremap", ERRORS(ENOMEM, EPERM));
    if (error) {
        errno = error;
        return MAP_FAILED;
    }
    return REAL(mremap)(before, bytes_before, bytes, flags, to);
}

/* userfaultfd, process_madvise, sched_setattr …; a futex and a thread's id can't fail. */
long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    const bool can_fail = number != SYS_futex && number != SYS_gettid && number != SYS_tgkill;
    const int error = can_fail ? fails(CALLER, "syscall", ERRORS(EPERM, ENOSYS, EMFILE)) : 0;
    if (error) {
        errno = error;
        return -1;
    }
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
