/* The spans of a heap zone: each is free or used, and free neighbours are joined.
 *
 * As in arena.c, the bookkeeping lies outside the memory that it describes. Here it is found by place and
 * not by handle: there is one tag a unit, and only the tags at both ends of a span count. A freed block is
 * joined with its free neighbours at once. The next block is cut from the lower end of the span where a thread
 * of this processor freed its last one, if enough of that is idle: its lines may be in the processor's caches
 * still, and filling a block of some MiB takes longer without them. A span that is many times larger is left
 * for blocks of its size. Otherwise it is cut from the lower end of a span in the smallest class that fits; the
 * most recently freed span comes first. So warm memory is used again before memory that was never touched. */
#include "heap/heap_zone.h"
#include "heap/heap_zone_space.h"

#include <errno.h>
#include <string.h>

#include "base/space_budget.h"
#include "heap/heap_stretch.h"
#include "os/os.h"

#define WARM_TIMES_MOST 8

int zone_open(heap_zone *zone, size_t bytes, size_t unit_bytes, bool huge) {
    if (bytes / unit_bytes > UINT32_MAX) bytes = (size_t)UINT32_MAX * unit_bytes;
    const uint32_t units = (uint32_t)(bytes / unit_bytes);
    zone->unit_bytes = unit_bytes; /* a zone without a base is asked for blocks, too, and has none */
    zone->huge = huge;
    if (units < 2) return -ENOMEM;
    zone->units = units;
    char *base = zone_place(zone);
    if (!base) return -ENOMEM;
    heap_tag *tags = zone->tags;
    /* Unit 0 is never handed out, so that 0 can mean "none". It acts as a used neighbour. */
    tags[0] = (heap_tag){.units = 1, .used = true};
    zone->fresh = 1;
    tags[1] = (heap_tag){.units = units - 1};
    tags[units - 1].first = 1;
    tags[units].used = true;
    size_class c = class_of(units - 1);
    zone->free_lists[c.first][c.second] = 1;
    zone->first_bitmap = 1ull << c.first;
    zone->second_bitmaps[c.first] = (uint16_t)(1u << c.second);
    atomic_store_explicit(&zone->base, base, memory_order_release);
    return 0;
}

/* ---- lists ------------------------------------------------------------------------------------- */

static void free_list_add(heap_zone *zone, uint32_t span) {
    heap_tag *tags = zone->tags;
    size_class c = class_of(tags[span].units);
    uint32_t head = zone->free_lists[c.first][c.second];
    tags[span].list_previous = 0;
    tags[span].list_next = head;
    if (head) tags[head].list_previous = span;
    zone->free_lists[c.first][c.second] = span;
    zone->first_bitmap |= 1ull << c.first;
    zone->second_bitmaps[c.first] |= (uint16_t)(1u << c.second);
}

static void free_list_remove(heap_zone *zone, uint32_t span) {
    heap_tag *tags = zone->tags;
    size_class c = class_of(tags[span].units);
    uint32_t before = tags[span].list_previous, after = tags[span].list_next;
    if (after) tags[after].list_previous = before;
    if (before) {
        tags[before].list_next = after;
        return;
    }
    zone->free_lists[c.first][c.second] = after;
    if (after) return;
    zone->second_bitmaps[c.first] &= (uint16_t)~(1u << c.second);
    if (!zone->second_bitmaps[c.first]) zone->first_bitmap &= ~(1ull << c.first);
}

/* ---- taking ------------------------------------------------------------------------------------ */

static uint32_t *warm_here(heap_zone *zone) { return &zone->warm[os_processor() % HEAP_WARM]; }

void zone_note_warm(heap_zone *zone, uint32_t span) { *warm_here(zone) = span; }

/* A span that was joined with one below it has 0 units. Tags above `fresh` may not be mapped. */
static uint32_t find_warm(heap_zone *zone, uint32_t units) {
    const uint32_t span = *warm_here(zone);
    if (!span || span >= zone->fresh || zone->tags[span].used || !zone->tags[span].units) return 0;
    const heap_stretch *idle = &zone->tags[span].stretches[HEAP_IDLE];
    if (idle->from > span || idle->end <= span) return 0;
    const uint32_t warm_units = idle->end - span; /* the sum of a unit and a length may not fit into 32 bits */
    return warm_units >= units && warm_units <= (uint64_t)units * WARM_TIMES_MOST ? span : 0;
}

static uint32_t find_free(heap_zone *zone, uint32_t units) {
    /* Look in the same class first: a freed size is most often the next size that is asked for. */
    size_class c = class_of(units);
    uint32_t span = zone->free_lists[c.first][c.second];
    for (int tries = 0; span && tries < SAME_CLASS_TRIES; tries++) {
        if (zone->tags[span].units >= units) return span;
        span = zone->tags[span].list_next;
    }
    c = class_not_empty(class_that_fits(units), zone->first_bitmap, zone->second_bitmaps);
    return c.first < FIRST_LEVELS ? zone->free_lists[c.first][c.second] : 0;
}

static int commit_up_to(heap_zone *zone, uint32_t end) {
    if (end <= zone->committed_units) return 0;
    const int refused = zone_reach(zone, end);
    if (refused < 0) return refused;
    const size_t step = COMMIT_STEP_BYTES / zone->unit_bytes;
    size_t wanted = (end + step - 1) / step * step;
    if (wanted > zone->reach) wanted = zone->reach;
    for (;;) {
        char *from = zone->base + (size_t)zone->committed_units * zone->unit_bytes;
        const size_t bytes = (wanted - zone->committed_units) * zone->unit_bytes;
        int result = os_commit(from, bytes);
        if (result == 0) {
            os_dump(from, bytes); /* blocks are the program's ordinary memory */
            if (zone->huge) os_prefer_huge_pages(from, bytes);
            zone->committed_units = (uint32_t)wanted;
            return 0;
        }
        if (wanted == end) return result;
        wanted = end; /* near the limit of committed memory: only what is needed */
    }
}

static void set_span(heap_zone *zone, uint32_t first, uint32_t units, bool used) {
    zone->tags[first].units = units;
    zone->tags[first].used = used;
    atomic_store_explicit(&zone->tags[first].aside, false, memory_order_relaxed);
    zone->tags[first + units - 1].first = first;
}

/* As set_span, without stretches. */
static void set_free_span(heap_zone *zone, uint32_t first, uint32_t units) {
    set_span(zone, first, units, false);
    memset(zone->tags[first].stretches, 0, sizeof zone->tags[first].stretches);
}

/* Cuts `units` off the lower end of a free span. The rest stays free. */
static void cut(heap_zone *zone, uint32_t span, uint32_t units) {
    heap_tag *tags = zone->tags;
    const uint32_t rest = span + units, rest_units = tags[span].units - units;
    free_list_remove(zone, span);
    if (rest_units) set_free_span(zone, rest, rest_units);
    for (int kind = 0; kind < HEAP_STRETCHES; kind++) {
        stretch_shorten(zone, kind, span, rest, rest + rest_units);
        stretch_move(zone, kind, span, rest);
    }
    if (rest_units) free_list_add(zone, rest);
    if (rest > zone->fresh) zone->fresh = rest;
    zone->used_units += units;
}

void *zone_take(heap_zone *zone, uint32_t units, uint32_t *stale_units) {
    if (zone->torn) return NULL;
    uint32_t span = find_warm(zone, units);
    if (!span) span = find_free(zone, units);
    if (!span || commit_up_to(zone, span + units) < 0) return NULL;
    *stale_units = span >= zone->fresh          ? 0
                   : span + units > zone->fresh ? zone->fresh - span
                                                : units;
    cut(zone, span, units);
    set_span(zone, span, units, true);
    zone->blocks++;
    return zone->base + (size_t)span * zone->unit_bytes;
}

static uint32_t unit_at(heap_zone *zone, const void *pointer) {
    return (uint32_t)((size_t)((const char *)pointer - zone->base) / zone->unit_bytes);
}

uint32_t zone_block_units(heap_zone *zone, const void *pointer) {
    const uint32_t unit = unit_at(zone, pointer);
    if (unit == 0 || (size_t)((const char *)pointer - zone->base) % zone->unit_bytes) return 0;
    const heap_tag *tag = &zone->tags[unit];
    return tag->used && !atomic_load_explicit(&tag->aside, memory_order_relaxed) ? tag->units : 0;
}

uint32_t zone_set_aside(heap_zone *zone, const void *pointer, cell_loan *loan) {
    if (!zone_block_units(zone, pointer)) return 0;
    heap_tag *tag = &zone->tags[unit_at(zone, pointer)];
    *loan = tag->loan;
    tag->loan = 0;
    /* No exchange: that two threads free a block at the same moment is rarely found anyway. */
    atomic_store_explicit(&tag->aside, true, memory_order_relaxed);
    return tag->units;
}

void *zone_use_again(heap_zone *zone, uint32_t first, cell_loan loan) {
    zone->tags[first].loan = loan;
    atomic_store_explicit(&zone->tags[first].aside, false, memory_order_relaxed);
    return zone->base + (size_t)first * zone->unit_bytes;
}

uint32_t zone_unit_of(heap_zone *zone, const void *pointer) { return unit_at(zone, pointer); }

/* ---- freeing ----------------------------------------------------------------------------------- */

static void join(heap_zone *zone, uint32_t below, uint32_t above, uint32_t to) {
    for (int kind = 0; kind < HEAP_STRETCHES; kind++) stretch_join(zone, kind, below, above, to);
}

static uint32_t free_span(heap_zone *zone, uint32_t first, uint32_t units, uint64_t now_ns) {
    heap_tag *tags = zone->tags;
    set_free_span(zone, first, units);
    zone->used_units -= units;
    stretch_extend(zone, HEAP_IDLE, first, first, first + units, now_ns);
    const uint32_t above = first + units;
    if (above < zone->units && !tags[above].used) {
        free_list_remove(zone, above);
        join(zone, first, above, first);
        const uint32_t above_units = tags[above].units;
        tags[above].units = 0;
        set_span(zone, first, tags[first].units + above_units, false);
    }
    const uint32_t below = tags[first - 1].first;
    if (!tags[below].used) {
        free_list_remove(zone, below);
        join(zone, below, first, below);
        const uint32_t joined_units = tags[first].units;
        tags[first].units = 0;
        set_span(zone, below, tags[below].units + joined_units, false);
        first = below;
    }
    free_list_add(zone, first);
    return first;
}

uint32_t zone_give(heap_zone *zone, uint32_t first, uint64_t now_ns) {
    if (zone->torn) return 0;
    zone->blocks--;
    return free_span(zone, first, zone->tags[first].units, now_ns);
}

bool zone_resize(heap_zone *zone, void *pointer, uint32_t units) {
    heap_tag *tags = zone->tags;
    const uint32_t first = unit_at(zone, pointer), now = tags[first].units;
    if (zone->torn) return units <= now;
    if (units < now) {
        set_span(zone, first, units, true);
        free_span(zone, first + units, now - units, os_now_ns());
    } else if (units > now) {
        const uint32_t above = first + now, more = units - now;
        if (above >= zone->units || tags[above].used || tags[above].units < more) return false;
        if (commit_up_to(zone, above + more) < 0) return false;
        cut(zone, above, more);
        tags[above].units = 0;
        set_span(zone, first, units, true);
    }
    return true;
}

void zone_forget_last(heap_zone *zone) {
    const uint32_t last = zone->tags[zone->units - 1].first;
    if (zone->torn || zone->tags[last].used || last >= zone->fresh) return;
    for (int kind = 0; kind < HEAP_STRETCHES; kind++) stretch_shorten(zone, kind, last, 0, 0);
    zone->fresh = last;
}

/* ---- parts to offer and to trim ---------------------------------------------------------------- */

static uint32_t units_in(const heap_zone *zone, size_t bytes) { return (uint32_t)(bytes / zone->unit_bytes); }

static void *part_at(heap_zone *zone, uint32_t from, uint32_t units, size_t *bytes) {
    *bytes = (size_t)units * zone->unit_bytes;
    return zone->base + (size_t)from * zone->unit_bytes;
}

void *zone_idle_part(heap_zone *zone, uint64_t before_ns, uint64_t offered_ns, size_t most_bytes, size_t *bytes,
                     uint64_t *freed_ns) {
    uint32_t from, units;
    if (zone->torn) return NULL;
    *freed_ns = zone->tags[zone->queues[HEAP_IDLE].first].stretches[HEAP_IDLE].since_ns;
    const uint32_t most = units_in(zone, most_bytes);
    const uint32_t span = stretch_take_oldest(zone, HEAP_IDLE, before_ns, most, &from, &units);
    if (!span) return NULL;
    if (offered_ns) stretch_extend(zone, HEAP_OFFERED, span, from, from + units, offered_ns);
    return part_at(zone, from, units, bytes);
}

void *zone_offered_part(heap_zone *zone, uint64_t before_ns, size_t most_bytes, size_t *bytes,
                        uint64_t *offered_ns) {
    uint32_t from, units;
    *offered_ns = UINT64_MAX;
    if (zone->torn) return NULL;
    const uint32_t most = units_in(zone, most_bytes);
    const uint32_t span = stretch_take_oldest(zone, HEAP_OFFERED, before_ns, most, &from, &units);
    if (span) {
        /* Idle memory between offered parts counts as idle still, and is discarded with them. */
        stretch_take_off(zone, HEAP_IDLE, span, from, from + units);
        return part_at(zone, from, units, bytes);
    }
    const uint32_t first = zone->queues[HEAP_OFFERED].first;
    *offered_ns = first ? zone->tags[first].stretches[HEAP_OFFERED].since_ns : UINT64_MAX;
    return NULL;
}

void *zone_free_part(heap_zone *zone, uint32_t *from, size_t most_bytes, size_t *bytes, bool discards) {
    heap_tag *tags = zone->tags;
    if (zone->torn) return NULL;
    /* A part ends where the next one begins, so `from` is mostly the first unit of a span as well. */
    uint32_t at = tags[*from].units ? *from : 1;
    while (at < zone->fresh && (tags[at].used || at + tags[at].units <= *from)) at += tags[at].units;
    if (at >= zone->fresh) return NULL;
    const uint32_t first = at > *from ? at : *from;
    uint32_t end = at + tags[at].units < zone->fresh ? at + tags[at].units : zone->fresh;
    if (end <= first) return NULL;
    if (end - first > most_bytes / zone->unit_bytes)
        end = first + (uint32_t)(most_bytes / zone->unit_bytes);
    for (int kind = 0; discards && kind < HEAP_STRETCHES; kind++)
        stretch_take_off(zone, kind, at, first, end);
    *from = end;
    return part_at(zone, first, end - first, bytes);
}
