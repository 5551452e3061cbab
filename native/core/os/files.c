/* System calls: reading and mapping files, and what the kernel reports in files. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/os_apart.h"
#include "os/os_kept_descriptors.h"
#include "os/os_opening.h"
#include "os/os_writing.h"
#include "os/os_proc_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Checked like a kept descriptor: other threads may close all descriptors meanwhile. */
static int read_small(const char *path, char *text, size_t bytes) {
    os_kept file = {.path = (char *)path, .held = {.number = -1}};
    const int result = os_kept_text(&file, text, bytes);
    os_let_go(&file.held);
    return result;
}

static int read_whole(const char *path, char *text, size_t bytes) {
    const int file = os_open_file(path, O_RDONLY, 0);
    if (file < 0) return -errno;
    os_held held;
    os_note(file, path, &held);
    size_t length = 0;
    int error = 0;
    while (length < bytes - 1) {
        const ssize_t some = pread(file, text + length, bytes - 1 - length, (off_t)length);
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) error = errno;
        if (some <= 0) break;
        length += (size_t)some;
    }
    if (!os_is_held(&held)) error = EBADF;
    os_let_go(&held);
    text[length] = 0;
    return error ? -error : (int)length;
}

typedef int (*reader)(const char *path, char *text, size_t bytes);

typedef struct {
    reader read;
    const char *path;
    char *text;
    size_t bytes;
    int result;
} reading;

static void take_reading(void *context) {
    reading *one = context;
    one->result = one->read(one->path, one->text, one->bytes);
}

static int read_path(reader read, const char *path, char *text, size_t bytes) {
    reading one = {read, path, text, bytes, 0};
    if (os_reads_apart()) os_apart(take_reading, &one);
    else take_reading(&one);
    return one.result;
}

int os_read_small(const char *path, char *text, size_t bytes) {
    return read_path(read_small, path, text, bytes);
}

int os_read_whole(const char *path, char *text, size_t bytes) {
    return read_path(read_whole, path, text, bytes);
}

bool os_exists(const char *path) {
    struct stat found;
    return stat(path, &found) == 0;
}

bool os_is_directory(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

static bool meminfo_field(const char *text, const char *field, uint64_t *bytes) {
    const char *at = strstr(text, field);
    if (!at) return false;
    *bytes = strtoull(at + strlen(field), NULL, 10) * 1024;
    return true;
}

int os_machine_usage(uint64_t *usage, uint64_t *total) {
    char text[2048];
    int result = os_proc_text(OS_MEMINFO, text, sizeof text);
    if (result < 0) return result;
    uint64_t available;
    if (!meminfo_field(text, "MemTotal:", total) || !meminfo_field(text, "MemAvailable:", &available))
        return -EINVAL;
    *usage = *total - available;
    return 0;
}

bool os_commits_strictly(void) {
    char text[8];
    return os_read_small("/proc/sys/vm/overcommit_memory", text, sizeof text) > 0 && text[0] == '2';
}

int os_commit_usage(uint64_t *usage, uint64_t *total) {
    char text[2048];
    int result = os_proc_text(OS_MEMINFO, text, sizeof text);
    if (result < 0) return result;
    if (!meminfo_field(text, "CommitLimit:", total) || !meminfo_field(text, "Committed_AS:", usage))
        return -EINVAL;
    return 0;
}

int os_share(const char *path, size_t bytes, void **out) {
    int file = os_open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (file < 0) return -errno;
    void *address = MAP_FAILED;
    os_held held;
    os_note(file, path, &held);
    os_writing writing;
    os_writing_begin(&writing);
    if (ftruncate(file, (off_t)bytes) == 0) address = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, file, 0);
    os_writing_end(&writing);
    int result = address == MAP_FAILED ? -errno : os_make_accessible(address, bytes);
    os_let_go(&held);
    if (result == 0) {
        *out = address;
        return 0;
    }
    if (address != MAP_FAILED) munmap(address, bytes);
    unlink(path);
    return result;
}

/* The size may be any: the caller checks what it expects. */
static int map_checked(int file, void *first, size_t first_bytes, os_mapping *out) {
    struct stat found;
    if (fstat(file, &found) < 0) return -errno;
    if (!S_ISREG(found.st_mode)) return -ENXIO;
    if (found.st_uid != geteuid() || found.st_mode & (S_IRWXG | S_IRWXO)) return -EPERM;
    int result = os_read_at(file, first, first_bytes, 0);
    if (result < 0) return result == -ENODATA ? -EBADMSG : result;
    out->bytes = (size_t)found.st_size;
    out->device = (uint64_t)found.st_dev;
    out->inode = (uint64_t)found.st_ino;
    out->address = mmap(NULL, out->bytes, PROT_NONE, MAP_SHARED, file, 0);
    if (out->address == MAP_FAILED) return -errno;
    result = os_make_accessible(out->address, out->bytes);
    if (result < 0) munmap(out->address, out->bytes);
    return result;
}

int os_map_file(const char *path, void *first, size_t first_bytes, os_mapping *out) {
    const int file = os_open_file(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
    if (file < 0) return -errno;
    os_held held;
    os_note(file, NULL, &held); /* no path: another process may replace the file meanwhile */
    const int result = map_checked(file, first, first_bytes, out);
    os_let_go(&held);
    return result;
}

int os_write_first(const char *path, const void *first, size_t bytes) {
    const int file = os_open_file(path, O_WRONLY | O_NOFOLLOW, 0);
    if (file < 0) return -errno;
    os_held held;
    os_note(file, path, &held);
    os_writing writing;
    os_writing_begin(&writing);
    ssize_t written;
    do written = pwrite(file, first, bytes, 0);
    while (written < 0 && errno == EINTR);
    const int result = written < 0 ? -errno : (size_t)written < bytes ? -ENOSPC
                                                                      : 0;
    os_writing_end(&writing);
    os_let_go(&held);
    return result;
}

int os_empty_shared(void *address, size_t bytes) {
    return madvise(address, bytes, MADV_REMOVE) < 0 ? -errno : 0;
}

int os_file_identity(const char *path, uint64_t *device, uint64_t *inode) {
    struct stat found;
    if (lstat(path, &found) < 0) return -errno;
    *device = (uint64_t)found.st_dev;
    *inode = (uint64_t)found.st_ino;
    return 0;
}

int os_share_over(const char *path, size_t bytes, void *place) {
    int file = os_open_file(path, O_RDWR | O_NOFOLLOW, 0);
    if (file < 0) return -errno;
    os_held held;
    os_note(file, path, &held);
    const int flags = MAP_SHARED | MAP_FIXED;
    const bool mapped = mmap(place, bytes, PROT_READ | PROT_WRITE, flags, file, 0) != MAP_FAILED;
    const int error = errno;
    os_let_go(&held);
    return mapped ? 0 : -error;
}

int os_allocate(const char *path, uint64_t offset, size_t bytes) {
    int file = os_open_file(path, O_RDWR | O_NOFOLLOW, 0);
    if (file < 0) return -errno;
    os_held held;
    os_note(file, path, &held);
    int result;
    os_writing writing;
    os_writing_begin(&writing);
    do result = fallocate(file, 0, (off_t)offset, (off_t)bytes) < 0 ? -errno : 0;
    while (result == -EINTR);
    os_writing_end(&writing);
    os_let_go(&held);
    return result;
}

int os_private_directory(const char *path) {
    if (mkdir(path, 0700) < 0 && errno != EEXIST) return -errno;
    /* In /dev/shm another user could have made the directory first, or a link in its place. */
    struct stat found;
    if (lstat(path, &found) < 0) return -errno;
    if (!S_ISDIR(found.st_mode)) return -ENOTDIR;
    if (found.st_uid != geteuid() || found.st_mode & (S_IWGRP | S_IWOTH)) return -EPERM;
    return 0;
}

/* A process of another PID namespace can't be looked up by its id. The kernel grants a read lease only while
 * no opening for writing exists, and a mapping keeps its opening after the descriptor was closed. Only file
 * systems of this kernel count: on a network or a host's file system, others may write unseen; and overlayfs
 * counts the mapping at another inode. */
static bool shows_writers(int file) {
    static const uint32_t kinds[] = {0x01021994 /* tmpfs */, 0xef53 /* ext4 */, 0x58465342 /* xfs */,
                                     0x9123683e /* btrfs */, 0xf2f52010 /* f2fs */};
    struct statfs found;
    if (fstatfs(file, &found) < 0) return false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if ((uint32_t)found.f_type == kinds[i]) return true;
    }
    return false;
}

int os_is_in_use(const char *path) {
    const int file = os_open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (file < 0) return -errno;
    os_held held;
    os_note(file, path, &held);
    int result = -ENOTSUP;
    if (shows_writers(file)) {
        result = fcntl(file, F_SETLEASE, F_RDLCK) == 0 ? 0 : errno == EAGAIN ? 1
                                                                             : -errno;
        if (result == 0) fcntl(file, F_SETLEASE, F_UNLCK);
    }
    os_let_go(&held);
    return result;
}

int os_remove(const char *path) { return unlink(path) < 0 ? -errno : 0; }

/* What getdents64() writes. musl since 1.2.4 has no dirent64, and its dirent is the same only by chance. */
typedef struct {
    uint64_t number;
    int64_t next;
    uint16_t bytes; /* of this entry */
    uint8_t type;
    char name[];
} directory_entry;

void os_each_file(const char *directory, void (*visit)(const char *path, const char *name)) {
    const int file = os_open_file(directory, O_RDONLY | O_DIRECTORY, 0);
    if (file < 0) return;
    os_held held; /* closedir(3) would close whatever has the number by then */
    os_note(file, directory, &held);
    _Alignas(8) char entries[4096];
    char path[1024];
    long length = 0;
    do {
        for (long at = 0, step; at < length; at += step) {
            const directory_entry *entry = (const directory_entry *)(const void *)(entries + at);
            step = entry->bytes;
            /* Opening a pipe would block. */
            if (entry->type != DT_REG && entry->type != DT_UNKNOWN) continue;
            if (snprintf(path, sizeof path, "%s/%s", directory, entry->name) < (int)sizeof path)
                visit(path, entry->name);
        }
        if (!os_is_held(&held)) break;
        length = syscall(SYS_getdents64, file, entries, sizeof entries);
    } while (length > 0);
    os_let_go(&held);
}

/* Standard error as it was when this library was loaded. */
static os_held standard_error = {.number = -1};

__attribute__((constructor)) static void note_standard_error(void) {
    os_note(STDERR_FILENO, NULL, &standard_error);
}

/* Whether descriptor 2 is there to receive complaints. A program that closed standard error may have got a
 * database or a client under that number. */
static bool takes_complaints(void) {
    if (os_is_held(&standard_error)) return true;
    struct stat found;
    if (fstat(STDERR_FILENO, &found) < 0) return false;
    if (S_ISCHR(found.st_mode)) return true;
    /* Put there by dup2, to be inherited: a log, a pipe to a logger, or a capture file without a name. */
    const int kept = fcntl(STDERR_FILENO, F_GETFD), flags = fcntl(STDERR_FILENO, F_GETFL);
    if (kept < 0 || kept & FD_CLOEXEC || flags < 0 || S_ISSOCK(found.st_mode)) return false;
    return !S_ISREG(found.st_mode) || found.st_nlink == 0 || flags & O_APPEND ||
           (flags & O_ACCMODE) == O_WRONLY;
}

void os_complain(const char *text, size_t bytes) {
    if (!takes_complaints()) return;
    os_writing writing;
    os_writing_begin(&writing);
    while (bytes > 0) {
        ssize_t written = write(STDERR_FILENO, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) break;
        text += written;
        bytes -= (size_t)written;
    }
    os_writing_end(&writing);
}
