/* Idle and offered stretches of free spans; see heap_stretch.h. */
#include "heap/heap_stretch.h"

static heap_stretch *stretch_of(heap_zone *zone, int kind, uint32_t span) {
    return &zone->tags[span].stretches[kind];
}

/* Inserts behind `before`, or as the first if `before` is 0. */
static void queue_insert(heap_zone *zone, int kind, uint32_t span, uint32_t before) {
    heap_queue *queue = &zone->queues[kind];
    heap_stretch *one = stretch_of(zone, kind, span);
    const uint32_t after = before ? stretch_of(zone, kind, before)->next : queue->first;
    one->previous = before;
    one->next = after;
    if (before) stretch_of(zone, kind, before)->next = span;
    else queue->first = span;
    if (after) stretch_of(zone, kind, after)->previous = span;
    else queue->last = span;
}

static void queue_remove(heap_zone *zone, int kind, uint32_t span) {
    heap_queue *queue = &zone->queues[kind];
    const heap_stretch *one = stretch_of(zone, kind, span);
    if (one->previous) stretch_of(zone, kind, one->previous)->next = one->next;
    else queue->first = one->next;
    if (one->next) stretch_of(zone, kind, one->next)->previous = one->previous;
    else queue->last = one->previous;
}

static void set(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end) {
    heap_stretch *one = stretch_of(zone, kind, span);
    const bool was_empty = stretch_is_empty(one);
    zone->queues[kind].units -= one->end - one->from;
    one->from = from < end ? from : 0;
    one->end = from < end ? end : 0;
    zone->queues[kind].units += one->end - one->from;
    if (!was_empty && stretch_is_empty(one)) queue_remove(zone, kind, span);
}

void stretch_extend(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end, uint64_t now_ns) {
    heap_stretch *one = stretch_of(zone, kind, span);
    if (stretch_is_empty(one)) {
        one->since_ns = now_ns;
        queue_insert(zone, kind, span, zone->queues[kind].last);
        set(zone, kind, span, from, end);
    } else {
        set(zone, kind, span, one->from < from ? one->from : from, one->end > end ? one->end : end);
    }
}

void stretch_shorten(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end) {
    const heap_stretch one = *stretch_of(zone, kind, span);
    if (stretch_is_empty(&one) || (one.from >= from && one.end <= end)) return;
    set(zone, kind, span, one.from > from ? one.from : from, one.end < end ? one.end : end);
}

void stretch_take_off(heap_zone *zone, int kind, uint32_t span, uint32_t from, uint32_t end) {
    const heap_stretch one = *stretch_of(zone, kind, span);
    if (stretch_is_empty(&one)) return;
    if (from <= one.from && end > one.from) set(zone, kind, span, end, one.end);
    else if (from < one.end && end >= one.end) set(zone, kind, span, one.from, from);
}

void stretch_move(heap_zone *zone, int kind, uint32_t from, uint32_t to) {
    heap_stretch *one = stretch_of(zone, kind, from), *other = stretch_of(zone, kind, to);
    if (from == to || stretch_is_empty(one)) return;
    const uint32_t before = one->previous;
    other->from = one->from;
    other->end = one->end;
    other->since_ns = one->since_ns;
    queue_remove(zone, kind, from);
    queue_insert(zone, kind, to, before);
    one->from = one->end = 0;
}

void stretch_join(heap_zone *zone, int kind, uint32_t below, uint32_t above, uint32_t to) {
    const uint32_t other = to == below ? above : below;
    const heap_stretch *low = stretch_of(zone, kind, below), *high = stretch_of(zone, kind, above);
    if (stretch_is_empty(stretch_of(zone, kind, other))) return;
    if (stretch_is_empty(stretch_of(zone, kind, to))) {
        stretch_move(zone, kind, other, to);
        return;
    }
    const uint32_t from = low->from, end = high->end;
    if (stretch_of(zone, kind, other)->since_ns < stretch_of(zone, kind, to)->since_ns) {
        set(zone, kind, to, 0, 0);
        stretch_move(zone, kind, other, to);
    } else {
        set(zone, kind, other, 0, 0);
    }
    set(zone, kind, to, from, end);
}

uint32_t stretch_take_oldest(heap_zone *zone, int kind, uint64_t before_ns, uint32_t most_units, uint32_t *from,
                             uint32_t *units) {
    const uint32_t span = zone->queues[kind].first;
    if (!span) return 0;
    const heap_stretch one = *stretch_of(zone, kind, span);
    if (one.since_ns > before_ns) return 0;
    *from = one.from;
    *units = one.end - one.from < most_units ? one.end - one.from : most_units;
    set(zone, kind, span, one.from + *units, one.end);
    return span;
}
