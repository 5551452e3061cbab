/* The ranges that were offered to the kernel, in the order of offering: the oldest first. */
#ifndef VRANGE_OFFERED_QUEUE_H
#define VRANGE_OFFERED_QUEUE_H

#include "reserve/rank.h"

/* Some entries are stale: their range was released again, or freed. Such a range has a newer entry, or none. */
typedef struct {
    candidate *items;
    size_t capacity, count;
} offered_queue;

bool offered_is_stale(const candidate *item);
void offered_drop_stale(offered_queue *queue);

/* Without memory the entry is dropped; the next pin then finds the loss. */
void offered_add(offered_queue *queue, const candidate *item);

#endif
