/* The only file that makes system calls.
 *
 * Everything the core asks of Linux is here under a name that says what for, so that the rest reads
 * without a man page at hand and a port has one file to write. Traps of single calls are told where
 * they are met. */
#define _GNU_SOURCE
#include "os.h"
#include "os_thread.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Newer than some headers we build against. */
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
    uint64_t dst, src, len, mode;
    int64_t move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
#ifndef PAGEMAP_SCAN /* Linux 6.7 */
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_PRESENT (1 << 3)
struct page_region {
    uint64_t start, end, categories;
};
struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#endif

size_t os_page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now); /* can't fail with the clocks below and a valid address */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

uint64_t os_thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

void os_sleep_ns(uint64_t nanoseconds) {
    struct timespec span = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    nanosleep(&span, NULL); /* woken early by a signal: every caller looks again by itself */
}

void os_yield(void) { sched_yield(); }

void *os_reserve(size_t bytes) {
    void *address = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

void *os_reserve_aligned(size_t bytes, size_t alignment) {
    char *all = os_reserve(bytes + alignment);
    if (!all) return NULL;
    char *aligned = (char *)(((uintptr_t)all + alignment - 1) & ~((uintptr_t)alignment - 1));
    if (aligned > all) os_unreserve(all, (size_t)(aligned - all));
    /* What comes after a length that is no multiple of the page goes from the next page on. */
    const size_t page = os_page_bytes();
    char *end = aligned + (bytes + page - 1) / page * page;
    char *all_end = all + (bytes + alignment + page - 1) / page * page;
    if (all_end > end) os_unreserve(end, (size_t)(all_end - end));
    return aligned;
}

uint64_t os_address_space_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return (uint64_t)limit.rlim_cur;
}

int os_commit(void *address, size_t bytes) {
    if (mprotect(address, bytes, PROT_READ | PROT_WRITE) < 0) return -errno;
    /* With THP=always a huge page would be split by the first partial MADV_FREE (187 us) and would
     * be discarded or kept as a whole. EINVAL: a kernel without huge pages, where nothing is lost. */
    if (madvise(address, bytes, MADV_NOHUGEPAGE) < 0 && errno != EINVAL) return -errno;
    return 0;
}

int os_unreserve(void *address, size_t bytes) { return munmap(address, bytes) < 0 ? -errno : 0; }

void *os_map(size_t bytes) {
    void *address =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

void *os_map_huge(size_t count) {
    char *memory = os_reserve_aligned(count * OS_HUGE_BYTES, OS_HUGE_BYTES);
    if (!memory) return NULL;
    if (mprotect(memory, count * OS_HUGE_BYTES, PROT_READ | PROT_WRITE) < 0 ||
        madvise(memory, count * OS_HUGE_BYTES, MADV_HUGEPAGE) < 0) {
        os_unreserve(memory, count * OS_HUGE_BYTES);
        return NULL;
    }
    return memory;
}

/* ---- the stats segment and whose it is -------------------------------------------------------- */

int os_share(const char *path, size_t bytes, void **out) {
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) return -errno;
    void *address = MAP_FAILED;
    if (ftruncate(file, (off_t)bytes) == 0)
        address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int error = errno;
    close(file);
    if (address == MAP_FAILED) {
        unlink(path);
        return -error;
    }
    *out = address;
    return 0;
}

int os_allocate(const char *path, uint64_t offset, size_t bytes) {
    int file = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) return -errno;
    int result = fallocate(file, 0, (off_t)offset, (off_t)bytes) < 0 ? -errno : 0;
    close(file);
    return result;
}

int os_replace(void *fresh, void *place, size_t bytes) {
    void *address = mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return address == MAP_FAILED ? -errno : 0;
}

int os_private_directory(const char *path) {
    if (mkdir(path, 0700) < 0 && errno != EEXIST) return -errno;
    /* In /dev/shm anybody could have made it first, or a link in its place. */
    struct stat found;
    if (lstat(path, &found) < 0) return -errno;
    if (!S_ISDIR(found.st_mode)) return -ENOTDIR;
    if (found.st_uid != geteuid() || found.st_mode & (S_IWGRP | S_IWOTH)) return -EPERM;
    return 0;
}

int os_remove(const char *path) { return unlink(path) < 0 ? -errno : 0; }

void os_each_file(const char *directory, void (*visit)(const char *path, const char *name)) {
    DIR *open_directory = opendir(directory);
    if (!open_directory) return;
    char path[1024];
    for (struct dirent *entry; (entry = readdir(open_directory));) {
        if (entry->d_type != DT_REG && entry->d_type != DT_UNKNOWN) continue; /* a pipe would block */
        if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) < (int)sizeof path)
            visit(path, entry->d_name);
    }
    closedir(open_directory);
}

bool os_process_exists(uint32_t pid) { return kill((pid_t)pid, 0) == 0 || errno != ESRCH; }

uint32_t os_process_id(void) { return (uint32_t)getpid(); }

uint32_t os_user_id(void) { return (uint32_t)geteuid(); }

uint64_t os_process_group(void) { return (uint64_t)getpgrp(); }

static const char *stat_field(const char *at, int from, int to) {
    for (int field = from; at && field < to; field++) {
        at = strchr(at, ' ');
        if (at) at++;
    }
    return at;
}

int os_process_start(uint64_t *ticks, uint64_t *stack) {
    char text[1024];
    int file = -1;
    int result = os_open_to_read("/proc/self/stat", &file);
    if (result < 0) return result;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return -ENODATA;
    text[length] = 0;
    /* The second field is the command's name, which may hold blanks and parentheses. */
    const char *start = stat_field(strrchr(text, ')'), 2, 22);
    const char *bottom = stat_field(start, 22, 28);
    if (!bottom) return -ENODATA;
    *ticks = strtoull(start, NULL, 10);
    *stack = strtoull(bottom, NULL, 10);
    return 0;
}

uint64_t os_process_namespace(void) {
    struct stat found;
    return stat("/proc/self/ns/pid", &found) < 0 ? 0 : (uint64_t)found.st_ino;
}

void os_command(char *name, size_t bytes) {
    int file = -1;
    memset(name, 0, bytes);
    if (os_open_to_read("/proc/self/comm", &file) < 0) return;
    ssize_t length = read(file, name, bytes - 1);
    close(file);
    name[length > 0 && name[length - 1] == '\n' ? length - 1 : 0] = 0;
}

/* ---- giving memory back, and asking for it ---------------------------------------------------- */

static int advise(void *address, size_t bytes, int advice) {
    while (madvise(address, bytes, advice) < 0) {
        if (errno != EINTR && errno != EAGAIN) return -errno;
    }
    return 0;
}

int os_lazyfree(void *address, size_t bytes) { return advise(address, bytes, MADV_FREE); }

void os_list_new_pages(void *empty) {
    /* New pages wait in a batch of each processor's. MADV_FREE empties that of the processor it runs
     * on, also where there is nothing to free; 0.4 us. */
    advise(empty, os_page_bytes(), MADV_FREE);
}

int os_lazyfree_many(const struct iovec *spans, size_t count) {
    /* One call for the batch spares a TLB shoot-down a range. Kernels before 6.13 refuse MADV_FREE
     * here, even on oneself, and a process that may not open a pidfd on itself has no use for it. */
    enum { UNTRIED, WORKS, REFUSED };
    static _Thread_local int batch = UNTRIED;
    if (batch != REFUSED) {
        int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
        if (self >= 0) {
            size_t total = 0;
            for (size_t i = 0; i < count; i++) total += spans[i].iov_len;
            ssize_t done = syscall(SYS_process_madvise, self, spans, count, MADV_FREE, 0);
            close(self);
            if (done >= 0 && (size_t)done == total) {
                batch = WORKS;
                return 0;
            }
        }
        if (batch == UNTRIED) batch = REFUSED;
    }
    int worst = 0;
    for (size_t i = 0; i < count; i++) {
        int result = os_lazyfree(spans[i].iov_base, spans[i].iov_len);
        if (result < 0) worst = result;
    }
    return worst;
}

int os_populate(void *address, size_t bytes) { return advise(address, bytes, MADV_POPULATE_WRITE); }

int os_discard(void *address, size_t bytes) { return advise(address, bytes, MADV_DONTNEED); }

int os_pageout(void *address, size_t bytes) { return advise(address, bytes, MADV_PAGEOUT); }

int os_residency(void *address, size_t bytes, unsigned char *pages) {
    while (mincore(address, bytes, pages) < 0) {
        if (errno != EAGAIN) return -errno;
    }
    size_t count = (bytes + os_page_bytes() - 1) / os_page_bytes();
    for (size_t i = 0; i < count; i++) pages[i] &= 1; /* the other bits are reserved */
    return 0;
}

bool os_is_resident(void *address) {
    unsigned char page = 0;
    return os_residency(address, 1, &page) == 0 && page;
}

/* mincore's own buffer is a page, so larger pieces gain nothing; small enough for a signal handler. */
#define RESIDENCY_PAGES 1024

static char *lowest_resident_by_looking(char *from, char *to) {
    const size_t page = os_page_bytes();
    unsigned char pages[RESIDENCY_PAGES];
    for (char *at = from; at < to; at += RESIDENCY_PAGES * page) {
        size_t bytes = (size_t)(to - at);
        if (bytes > RESIDENCY_PAGES * page) bytes = RESIDENCY_PAGES * page;
        if (os_residency(at, bytes, pages) < 0) return to;
        const unsigned char *found = memchr(pages, 1, bytes / page);
        if (found) return at + (size_t)(found - pages) * page;
    }
    return to;
}

char *os_lowest_resident(char *from, char *to) {
    /* Opened each time: a descriptor kept across a fork would go on telling the parent's pages. */
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0) return lowest_resident_by_looking(from, to);
    struct page_region region = {0, 0, 0};
    struct pm_scan_arg scan = {.size = sizeof scan,
                               .start = (uintptr_t)from,
                               .end = (uintptr_t)to,
                               .vec = (uintptr_t)&region,
                               .vec_len = 1,
                               .max_pages = 1,
                               .category_mask = PAGE_IS_PRESENT,
                               .return_mask = PAGE_IS_PRESENT};
    int found = ioctl(file, PAGEMAP_SCAN, &scan);
    close(file);
    if (found < 0) return lowest_resident_by_looking(from, to);
    return found == 0 ? to : (char *)(uintptr_t)region.start;
}

size_t os_resident_bytes(char *from, char *to) {
    const size_t page = os_page_bytes();
    unsigned char pages[RESIDENCY_PAGES];
    size_t resident = 0;
    for (char *at = os_lowest_resident(from, to); at < to; at += RESIDENCY_PAGES * page) {
        size_t bytes = (size_t)(to - at);
        if (bytes > RESIDENCY_PAGES * page) bytes = RESIDENCY_PAGES * page;
        if (os_residency(at, bytes, pages) < 0) break;
        for (size_t i = 0; i < bytes / page; i++) resident += pages[i];
    }
    return resident * page;
}

bool os_has_huge_pages(void) {
    char text[64];
    int file = -1;
    if (os_open_to_read("/sys/kernel/mm/transparent_hugepage/enabled", &file) < 0) return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return false;
    text[length] = 0;
    return strstr(text, "[never]") == NULL;
}

void os_prefer_huge_pages(void *address, size_t bytes) { madvise(address, bytes, MADV_HUGEPAGE); }

int os_protect(void *address, size_t bytes) {
    return mprotect(address, bytes, PROT_NONE) < 0 ? -errno : 0;
}

bool os_is_readable(void *address) {
    const uintptr_t page = (uintptr_t)address & ~((uintptr_t)os_page_bytes() - 1);
    return advise((void *)page, os_page_bytes(), MADV_POPULATE_READ) == 0;
}

int os_userfault_open(int *descriptor) {
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0) return -errno;
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    *descriptor = fd;
    return 0;
}

int os_userfault_register(int descriptor, void *address, size_t bytes) {
    struct uffdio_register request = {
        .range = {.start = (uintptr_t)address, .len = bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    return ioctl(descriptor, UFFDIO_REGISTER, &request) < 0 ? -errno : 0;
}

/* Both calls below want all of it in one mapping, or answer ENOENT. An arena is not always one: the
 * kernel does not join neighbours again that came by different ways, as after a fork, or where one
 * had been joined with what lies above the arena. A single page always is in one. */
static bool spans_mappings(int error, size_t bytes) {
    return error == ENOENT && bytes > os_page_bytes();
}

static int copy_into(int descriptor, char *to, const char *from, size_t bytes, bool over_present) {
    const size_t page = os_page_bytes();
    size_t done = 0, most = bytes;
    while (done < bytes) {
        size_t wanted = bytes - done < most ? bytes - done : most;
        struct uffdio_copy request = {
            .dst = (uintptr_t)to + done, .src = (uintptr_t)from + done, .len = wanted};
        if (ioctl(descriptor, UFFDIO_COPY, &request) == 0) {
            done += wanted;
            continue;
        }
        int error = errno;
        if (spans_mappings(error, wanted)) {
            most = page;
            continue;
        }
        /* The field holds the bytes done before the error, or minus the error itself. */
        if (request.copy > 0) done += (size_t)request.copy;
        if (error == EAGAIN || error == EINTR) continue;
        if (error != EEXIST) return -error;
        /* COPY neither changes a page that is there nor dirties it again. */
        if (over_present) memcpy(to + done, from + done, page);
        done += page;
    }
    return 0;
}

int os_userfault_copy(int descriptor, void *to, const void *from, size_t bytes) {
    return copy_into(descriptor, to, from, bytes, true);
}

int os_userfault_copy_missing(int descriptor, void *to, const void *from, size_t bytes) {
    return copy_into(descriptor, to, from, bytes, false);
}

int os_userfault_move_huge(int descriptor, void *to, void *from) {
    struct uffdio_move request = {
        .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = OS_HUGE_BYTES};
    return ioctl(descriptor, UFFDIO_MOVE, &request) < 0 ? -errno : 0;
}

int os_userfault_zero(int descriptor, void *address, size_t bytes) {
    const size_t page = os_page_bytes();
    size_t done = 0, most = bytes;
    while (done < bytes) {
        size_t wanted = bytes - done < most ? bytes - done : most;
        struct uffdio_zeropage request = {
            .range = {.start = (uintptr_t)address + done, .len = wanted}};
        if (ioctl(descriptor, UFFDIO_ZEROPAGE, &request) == 0) {
            done += wanted;
            continue;
        }
        int error = errno;
        if (spans_mappings(error, wanted)) {
            most = page;
            continue;
        }
        if (request.zeropage > 0) done += (size_t)request.zeropage;
        if (error == EAGAIN || error == EINTR) continue;
        if (error != EEXIST) return -error;
        done += page; /* present: what it holds is not ours to clear */
    }
    return 0;
}

int os_read_at(int descriptor, void *to, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t some = pread(descriptor, (char *)to + done, bytes - done, (off_t)(offset + done));
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return -errno;
        if (some == 0) return -ENODATA;
        done += (size_t)some;
    }
    return 0;
}

void os_write_error(const char *text, size_t bytes) {
    if (write(STDERR_FILENO, text, bytes) < 0) {
        /* The process is about to end, and there is nowhere else to say why. */
    }
}

int os_open_to_read(const char *path, int *descriptor) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    *descriptor = fd;
    return 0;
}

int os_read_number(int descriptor, uint64_t *value) {
    char text[32];
    ssize_t length = pread(descriptor, text, sizeof text - 1, 0);
    if (length < 0) return -errno;
    uint64_t number = 0;
    ssize_t i = 0;
    for (; i < length && text[i] >= '0' && text[i] <= '9'; i++)
        number = number * 10 + (uint64_t)(text[i] - '0');
    if (i == 0) return -EINVAL;
    *value = number;
    return 0;
}

int os_read_text(int descriptor, char *text, size_t bytes) {
    ssize_t length;
    do length = pread(descriptor, text, bytes - 1, 0);
    while (length < 0 && errno == EINTR);
    if (length < 0) return -errno;
    text[length] = 0;
    return (int)length;
}

static bool meminfo_field(const char *text, const char *field, uint64_t *bytes) {
    const char *at = strstr(text, field);
    if (!at) return false;
    *bytes = strtoull(at + strlen(field), NULL, 10) * 1024;
    return true;
}

int os_machine_usage(uint64_t *usage, uint64_t *total) {
    char text[2048];
    int file = -1;
    int result = os_open_to_read("/proc/meminfo", &file);
    if (result < 0) return result;
    ssize_t length = read(file, text, sizeof text - 1);
    if (length < 0) result = -errno;
    close(file);
    if (result < 0) return result;
    text[length] = 0;
    uint64_t available;
    if (!meminfo_field(text, "MemTotal:", total) || !meminfo_field(text, "MemAvailable:", &available))
        return -EINVAL;
    *usage = *total - available;
    return 0;
}

void os_close(int descriptor) { close(descriptor); }

int os_thread_start(pthread_t *thread, void *(*function)(void *)) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, function, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int os_thread_id(void) { return (int)syscall(SYS_gettid); }

bool os_is_main_thread(void) { return os_thread_id() == getpid(); }

int os_thread_stack(char **low, char **top) {
    pthread_attr_t attributes;
    int error = pthread_getattr_np(pthread_self(), &attributes);
    if (error) return -error;
    void *address;
    size_t bytes;
    error = pthread_attr_getstack(&attributes, &address, &bytes);
    pthread_attr_destroy(&attributes);
    if (error) return -error;
    *low = address;
    *top = (char *)address + bytes;
    return 0;
}

bool os_thread_is_blocked(int thread_id) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread_id);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return false;
    text[length] = 0;
    /* "1234 (name) S ...": the name may hold anything, a bracket too, so the last one counts. */
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' && (name_end[2] == 'S' || name_end[2] == 'D');
}

int os_thread_signal(int thread_id, int number) {
    return syscall(SYS_tgkill, getpid(), thread_id, number) < 0 ? -errno : 0;
}

int os_signal_action(int number, const struct sigaction *action, struct sigaction *previous) {
    return sigaction(number, action, previous) < 0 ? -errno : 0;
}

int os_alternate_stack(const stack_t *stack, stack_t *previous) {
    return sigaltstack(stack, previous) < 0 ? -errno : 0;
}

size_t os_alternate_stack_bytes(void) {
    /* What the kernel itself writes there grows with the processor's registers (AVX-512, AMX); the
     * rest is for handlers, of which faulthandler's walks Python frames. */
    const size_t page = os_page_bytes();
    size_t bytes = getauxval(AT_MINSIGSTKSZ) + 64 * 1024;
    return (bytes + page - 1) / page * page;
}

void os_complain(const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t written = write(STDERR_FILENO, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return;
        text += written;
        bytes -= (size_t)written;
    }
}
