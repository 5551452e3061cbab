/* System calls: which pages have memory behind them.
 *
 * mincore reports every page. PAGEMAP_SCAN, on kernels that have it, finds the first resident page in a
 * span of any size. Both answers may be out of date before the caller reads them. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/os_proc_files.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

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
#define MAPPED_ONCE (1ull << 56)
#define ENTRIES_AT_ONCE 128 /* small enough for a signal handler's stack */

typedef struct {
    void *address;
    size_t bytes;
    unsigned char *pages;
} residency;

/* For sandboxes that refuse mincore, as some allow only the calls that they know. */
static int read_pagemap(int file, void *context) {
    const residency *of = context;
    const size_t page = os_page_bytes(), count = (of->bytes + page - 1) / page;
    uint64_t entries[ENTRIES_AT_ONCE];
    int result = 0;
    for (size_t done = 0; done < count && result == 0;) {
        const size_t some = count - done < ENTRIES_AT_ONCE ? count - done : ENTRIES_AT_ONCE;
        const uint64_t at = ((uintptr_t)of->address / page + done) * sizeof *entries;
        result = os_read_at(file, entries, some * sizeof *entries, at);
        for (size_t i = 0; i < some; i++) of->pages[done + i] = !!(entries[i] & (PRESENT | SWAPPED));
        done += some;
    }
    return result;
}

int os_residency(void *address, size_t bytes, unsigned char *pages) {
    residency of = {address, bytes, pages};
    while (mincore(address, bytes, pages) < 0) {
        if (errno == EPERM || errno == EACCES || errno == ENOSYS)
            return os_proc_use(OS_PAGEMAP, read_pagemap, &of);
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

typedef struct {
    const void *address;
    uint64_t entry;
} page_entry;

static int read_entry(int file, void *context) {
    page_entry *of = context;
    const uint64_t at = (uintptr_t)of->address / os_page_bytes() * sizeof of->entry;
    return os_read_at(file, &of->entry, sizeof of->entry, at);
}

bool os_is_shared(void *address) {
    page_entry of = {address, 0};
    if (os_proc_use(OS_PAGEMAP, read_entry, &of) < 0) return false;
    return (of.entry & (PRESENT | MAPPED_ONCE)) == PRESENT;
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

static int scan_pagemap(int file, void *scan) {
    const int found = ioctl(file, PAGEMAP_SCAN, scan);
    return found < 0 ? -errno : found;
}

char *os_lowest_resident(char *from, char *to) {
    struct page_region region = {0, 0, 0};
    struct pm_scan_arg scan = {.size = sizeof scan,
                               .start = (uintptr_t)from,
                               .end = (uintptr_t)to,
                               .vec = (uintptr_t)&region,
                               .vec_len = 1,
                               .max_pages = 1,
                               .category_mask = PAGE_IS_PRESENT,
                               .return_mask = PAGE_IS_PRESENT};
    const int found = os_proc_use(OS_PAGEMAP, scan_pagemap, &scan);
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
