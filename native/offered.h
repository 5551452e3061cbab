/* What was offered to the kernel, in the order in which it was: the oldest first. */
#ifndef VRANGE_OFFERED_H
#define VRANGE_OFFERED_H

#include "rank.h"

/* Some are stale: released again since, or freed. Such a range has a newer place, or none. */
typedef struct {
    candidate *items;
    size_t capacity, count;
} offered_queue;

bool offered_is_stale(const candidate *item);
void offered_drop_stale(offered_queue *queue);

/* Forgotten without memory: a loss is then found by the next pin. */
void offered_add(offered_queue *queue, const candidate *item);

#endif
