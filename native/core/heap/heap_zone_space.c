/* The address space of a zone follows what the zone uses.
 *
 * A program may limit its address space at any time (RLIMIT_AS), and so may another process. What is reserved
 * counts, used or not: a heap that reserves for all of the machine's memory leaves such a program nothing. So a
 * zone only chooses a place that is likely to stay free, and reserves it in steps from the bottom up. If
 * another mapping gets there first, the zone does not grow beyond it, and other allocators serve what has no
 * room. The Go runtime places its heap in a similar way.
 *
 * The last free span always ends with the place. Of its tags, only those at both ends are used. */
#include "heap/heap_zone_space.h"

#include <errno.h>

#include "base/amounts.h"
#include "base/space_budget.h"
#include "os/os.h"

#define STEP_BYTES ((size_t)32 << 20)
#define STEP_SHARE 8 /* of what is reserved: a large heap takes few steps */

static char *page_of(const void *address) {
    const uintptr_t page = os_page_bytes();
    return (char *)((uintptr_t)address & ~(page - 1));
}

static char *page_above(const void *address) { return page_of((const char *)address + os_page_bytes() - 1); }

/* The page that always holds the last tags. */
static char *last_tags(const heap_zone *zone) { return page_of(&zone->tags[zone->units - 1]); }

static space_use use_of(const heap_zone *zone) {
    return atomic_load_explicit(&zone->reach, memory_order_relaxed) > 1 ? SPACE_MORE : SPACE_FIRST;
}

static int map_tags(char *from, const char *to, space_use use) {
    const size_t bytes = (size_t)(to - from);
    if (!space_take(bytes, use)) return -ENOMEM;
    int result = os_reserve_at(from, bytes);
    if (result == 0) {
        result = os_make_accessible(from, bytes);
        if (result == 0) os_leave_out_of_dumps(from, bytes);
        else os_unreserve(from, bytes);
    }
    if (result < 0) space_give(bytes, use);
    return result < 0 ? -ENOMEM : 0;
}

/* Makes the tags of all units up to `end` usable, and that of `end` itself: the rest of a cut begins there. */
static int reach_tags(heap_zone *zone, uint32_t end) {
    char *to = page_above(&zone->tags[end + 1]);
    if (to > last_tags(zone)) to = last_tags(zone);
    if (to <= zone->tags_end) return 0;
    const int result = map_tags(zone->tags_end, to, use_of(zone));
    if (result == 0) zone->tags_end = to;
    return result;
}

static int reserve_up_to(heap_zone *zone, char *base, uint32_t end) {
    const uint32_t reach = zone->reach;
    const size_t bytes = (size_t)(end - reach) * zone->unit_bytes;
    char *from = base + (size_t)reach * zone->unit_bytes;
    const space_use use = use_of(zone);
    if (!space_take(bytes, use)) return -ENOMEM;
    int result = os_reserve_at(from, bytes);
    if (result == 0 && (result = reach_tags(zone, end)) < 0) os_unreserve(from, bytes);
    if (result < 0) {
        space_give(bytes, use);
        return -ENOMEM;
    }
    atomic_store(&zone->reach, end);
    return 0;
}

char *zone_place(heap_zone *zone) {
    const size_t blocks = (size_t)zone->units * zone->unit_bytes;
    char *base = os_quiet_place(blocks + (zone->units + 1) * sizeof(heap_tag), zone->unit_bytes);
    if (!base) return NULL;
    atomic_store(&zone->reach, 0);
    zone->committed_units = 0;
    zone->tags = (heap_tag *)(base + blocks);
    zone->tags_end = (char *)zone->tags;
    const char *end = page_above(&zone->tags[zone->units + 1]);
    if (map_tags(last_tags(zone), end, SPACE_FIRST) < 0) return NULL;
    /* Unit 0 is reserved at once, so that the next zone finds this place taken. */
    if (reserve_up_to(zone, base, 1) == 0) return base;
    space_return(last_tags(zone), (size_t)(end - last_tags(zone)), SPACE_FIRST);
    return NULL;
}

int zone_reach(heap_zone *zone, uint32_t end) {
    const size_t reserved = zone_reserved_bytes(zone);
    if (end <= zone->reach) return 0;
    if (end > zone->units) return -ENOMEM;
    const size_t share = reserved / STEP_SHARE, step = share > STEP_BYTES ? share : STEP_BYTES;
    const uint32_t wanted = (uint32_t)lesser(end + step / zone->unit_bytes, zone->units);
    if (reserve_up_to(zone, zone->base, wanted) == 0) return 0;
    return reserve_up_to(zone, zone->base, end); /* near a limit: only what is needed */
}

void zone_return_unused(heap_zone *zone) {
    const uint32_t reach = zone->reach, used = zone->fresh;
    if (reach > used) {
        /* First: another mapping may lie there as soon as it is returned. */
        atomic_store(&zone->reach, used);
        if (zone->committed_units > used) zone->committed_units = used;
        space_return(zone->base + (size_t)used * zone->unit_bytes, (size_t)(reach - used) * zone->unit_bytes,
                     SPACE_MORE);
    }
    char *from = page_above(&zone->tags[used + 1]);
    if (from >= zone->tags_end) return;
    space_return(from, (size_t)(zone->tags_end - from), SPACE_MORE);
    zone->tags_end = from;
}
