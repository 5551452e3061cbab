/* The queue of what is offered. A pin or a free removes nothing from it, because neither may wait for a
 * lock. The entry is stale then, and the next reader of the queue drops it. */
#include "reserve/offered_queue.h"

#include "os/os.h"

bool offered_is_stale(const candidate *item) {
    range *r = table_at(item->index);
    uint64_t word = atomic_load(range_word(r));
    return (word & WORD_GENERATION) != item->generation || word_state(word) != OFFERED ||
           atomic_load(&r->released_ns) != item->released_ns;
}

void offered_drop_stale(offered_queue *queue) {
    size_t kept = 0;
    for (size_t place = 0; place < queue->count; place++) {
        if (!offered_is_stale(&queue->items[place])) queue->items[kept++] = queue->items[place];
    }
    queue->count = kept;
}

static bool make_room(offered_queue *queue) {
    if (queue->count < queue->capacity) return true;
    offered_drop_stale(queue);
    if (queue->count < queue->capacity - queue->capacity / 4) return true;
    const size_t capacity = queue->capacity ? queue->capacity * 2 : 1024;
    candidate *items =
        os_map_larger(queue->items, queue->capacity * sizeof *items, capacity * sizeof *items);
    if (!items) return queue->count < queue->capacity;
    queue->items = items;
    queue->capacity = capacity;
    return true;
}

void offered_add(offered_queue *queue, const candidate *item) {
    if (make_room(queue)) queue->items[queue->count++] = *item;
}
