/* System calls: mappings at a chosen address. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#define PLACES_TRIED 16u

#ifdef __SANITIZE_THREAD__
/* The thread sanitizer has no shadow for a quarter of all addresses away, and changes such an address to 0,
 * where the kernel maps for root. Of the 1.5 TiB that it has a shadow for at the top, up to 1 TiB is skipped at
 * random. */
#define QUIET_DISTANCE ((uintptr_t)256 << 30)
#else
#define QUIET_DISTANCE (os_address_space_bytes() / 4)
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

int os_reserve_at(void *address, size_t bytes) {
    void *got = mmap(address, bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED) return -errno;
    if (got == address) return 0;
    munmap(got, bytes); /* a kernel before 4.17, or an emulation, takes the address as a hint */
    return -EEXIST;
}

int os_map_missing(void *address, size_t bytes) {
    int result = os_reserve_at(address, bytes);
    if (result == -EEXIST) return 0;
    if (result == 0) result = os_commit(address, bytes);
    if (result == 0) os_dump(address, bytes);
    return result;
}

/* If a limit forbids the trial, nothing lies there either: the kernel looks for that first. */
static bool is_free(char *place, size_t bytes) {
    const int result = os_reserve_at(place, bytes);
    if (result == 0) os_unreserve(place, bytes);
    return result != -EEXIST;
}

/* The kernel maps what has no address side by side, from one end of a large part of the address space. A
 * quarter of all addresses away from the latest such mapping is where no program gets by itself. The program,
 * the libraries, the stack and the memory of brk are not there either; and if something is, the next place is
 * tried. */
char *os_quiet_place(size_t bytes, size_t alignment) {
    const size_t page = os_page_bytes();
    char *latest = os_reserve(page);
    if (!latest) return NULL;
    os_unreserve(latest, page);
    for (unsigned i = 0; i < PLACES_TRIED; i++) {
        const uintptr_t distance = QUIET_DISTANCE + i * bytes, from = (uintptr_t)latest;
        const uintptr_t place = from > distance + bytes ? from - distance : from + distance;
        char *aligned = (char *)((place + alignment - 1) / alignment * alignment);
        if (is_free(aligned, bytes)) return aligned;
    }
    return NULL;
}
