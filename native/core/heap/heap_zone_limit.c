/* A zone stops growing and returns its address space, because the program limits its own (RLIMIT_AS).
 *
 * The last free span stays as long as it was, but no block is cut from it above `reach`. So nothing writes to
 * its memory there, and of its tags only those at both ends are used. */
#include "base/space_budget.h"
#include "heap/heap_zone.h"
#include "os/os.h"

void zone_stop_growing(heap_zone *zone) {
    atomic_store(&zone->reach, zone->fresh);
    if (zone->committed_units > zone->fresh) zone->committed_units = zone->fresh;
}

static char *page_above(const void *address) {
    const uintptr_t page = os_page_bytes();
    return (char *)(((uintptr_t)address + page - 1) & ~(page - 1));
}

void zone_return_rest(heap_zone *zone) {
    const uint32_t reach = zone->reach;
    if (reach >= zone->units) return;
    space_return(zone->base + (size_t)reach * zone->unit_bytes,
                 (size_t)(zone->units - reach) * zone->unit_bytes, SPACE_FIRST);
    char *from = page_above(&zone->tags[reach + 1]), *last = (char *)&zone->tags[zone->units - 1];
    last = page_above(last - os_page_bytes() + 1);
    if (last > from) space_return(from, (size_t)(last - from), SPACE_FIRST);
}
