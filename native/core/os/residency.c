/* System calls: which pages have memory behind them.
 *
 * mincore reports every page. PAGEMAP_SCAN, on kernels that have it, finds the first resident page in a
 * span of any size. Both answers may be out of date before the caller reads them. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/os_kept_descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

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

#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
#define ENTRIES_AT_ONCE 128 /* small enough for a signal handler's stack */

/* For sandboxes that refuse mincore, as some allow only the calls that they know. */
static int read_pagemap(void *address, size_t bytes, unsigned char *pages) {
    const size_t page = os_page_bytes(), count = (bytes + page - 1) / page;
    uint64_t entries[ENTRIES_AT_ONCE];
    os_held held;
    const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0) return -errno;
    os_note(file, &held);
    int result = 0;
    for (size_t done = 0; done < count && result == 0;) {
        const size_t some = count - done < ENTRIES_AT_ONCE ? count - done : ENTRIES_AT_ONCE;
        const uint64_t at = ((uintptr_t)address / page + done) * sizeof *entries;
        result = os_read_at(file, entries, some * sizeof *entries, at);
        for (size_t i = 0; i < some; i++) pages[done + i] = !!(entries[i] & (PRESENT | SWAPPED));
        done += some;
    }
    if (!os_is_held(&held)) result = -EBADF; /* other code closed it meanwhile */
    os_let_go(&held);
    return result;
}

int os_residency(void *address, size_t bytes, unsigned char *pages) {
    while (mincore(address, bytes, pages) < 0) {
        if (errno == EPERM || errno == EACCES || errno == ENOSYS)
            return read_pagemap(address, bytes, pages);
        if (errno != EAGAIN) return -errno;
    }
    size_t count = (bytes + os_page_bytes() - 1) / os_page_bytes();
    for (size_t i = 0; i < count; i++) pages[i] &= 1; /* the other bits are reserved */
    return 0;
}

bool os_is_resident(void *address) {
    unsigned char page = 0;
    return os_residency(address, 1, &page) < 0 || page;
}

/* mincore's own buffer is one page, so larger pieces gain nothing. Small enough for a signal handler's
 * stack. */
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
    /* Opened on each call: after a fork a kept descriptor would go on reporting the parent's pages. */
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
    os_held held;
    os_note(file, &held);
    int found = ioctl(file, PAGEMAP_SCAN, &scan);
    if (!os_is_held(&held)) found = -1;
    os_let_go(&held);
    if (found < 0) return lowest_resident_by_looking(from, to);
    return found == 0 ? to : (char *)(uintptr_t)region.start;
}

size_t os_count_resident(char *from, char *to) {
    const size_t page = os_page_bytes();
    unsigned char pages[RESIDENCY_PAGES];
    size_t resident = 0;
    for (char *at = from; at < to; at += RESIDENCY_PAGES * page) {
        size_t bytes = (size_t)(to - at);
        if (bytes > RESIDENCY_PAGES * page) bytes = RESIDENCY_PAGES * page;
        if (os_residency(at, bytes, pages) < 0) break;
        for (size_t i = 0; i < bytes / page; i++) resident += pages[i];
    }
    return resident * page;
}

size_t os_resident_bytes(char *from, char *to) {
    return os_count_resident(os_lowest_resident(from, to), to);
}
