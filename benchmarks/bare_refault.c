/* What a refault costs without vrange: SIGBUS, fill a buffer, UFFDIO_COPY, and nothing else. No table
 * of arrays, no read-ahead, no counters, no race with anybody, and what was filled is never offered.
 * And the loops that touch, which are the same for all who are compared. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* cffi: begin */
/* A mapping of `bytes` filled by blocks with `value`; `regenerate`: the block is put together each
 * time, else once. NULL with errno. One a process. */
void *bare_open(size_t bytes, size_t block_bytes, uint64_t value, int regenerate);
int bare_discard(void);
/* Nanoseconds for touching `count` blocks in the order given, and all pages in their own. */
uint64_t touch_blocks(const void *base, const uint32_t *order, size_t count, size_t block_bytes);
uint64_t touch_pages(const void *base, size_t bytes);
/* cffi: end */

static struct {
    char *base, *buffer;
    size_t bytes, block_bytes;
    uint64_t value;
    int regenerate, userfault;
} bare;

static void put_together(void) {
    uint64_t *words = (uint64_t *)bare.buffer;
    for (size_t i = 0; i < bare.block_bytes / 8; i++) words[i] = bare.value;
}

static void on_sigbus(int number, siginfo_t *info, void *context) {
    (void)context;
    size_t offset = (size_t)((char *)info->si_addr - bare.base);
    if (offset >= bare.bytes) {
        signal(number, SIG_DFL);
        return;
    }
    if (bare.regenerate) put_together();
    struct uffdio_copy copy = {.dst = (uintptr_t)bare.base + offset / bare.block_bytes * bare.block_bytes,
                               .src = (uintptr_t)bare.buffer,
                               .len = bare.block_bytes};
    if (ioctl(bare.userfault, UFFDIO_COPY, &copy) < 0) signal(number, SIG_DFL);
}

static void *map(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void *bare_open(size_t bytes, size_t block_bytes, uint64_t value, int regenerate) {
    bare.userfault =
        (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
    if (bare.userfault < 0 || ioctl(bare.userfault, UFFDIO_API, &api) < 0) return NULL;
    bare.base = map(bytes), bare.buffer = map(block_bytes);
    if (!bare.base || !bare.buffer) return NULL;
    bare.bytes = bytes, bare.block_bytes = block_bytes;
    bare.value = value, bare.regenerate = regenerate;
    madvise(bare.base, bytes, MADV_NOHUGEPAGE);
    struct uffdio_register request = {.range = {.start = (uintptr_t)bare.base, .len = bytes},
                                      .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(bare.userfault, UFFDIO_REGISTER, &request) < 0) return NULL;
    put_together();
    struct sigaction action = {.sa_sigaction = on_sigbus,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    return sigaction(SIGBUS, &action, NULL) < 0 ? NULL : bare.base;
}

int bare_discard(void) { return madvise(bare.base, bare.bytes, MADV_DONTNEED) < 0 ? errno : 0; }

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t touch_blocks(const void *base, const uint32_t *order, size_t count, size_t block_bytes) {
    uint64_t start = now_ns();
    for (size_t i = 0; i < count; i++)
        (void)((const volatile char *)base)[order[i] * block_bytes];
    return now_ns() - start;
}

uint64_t touch_pages(const void *base, size_t bytes) {
    uint64_t start = now_ns();
    for (size_t i = 0; i < bytes; i += 4096) (void)((const volatile char *)base)[i];
    return now_ns() - start;
}
