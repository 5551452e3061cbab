/* The victims: the least valuable idle ranges, as they were ranked last. */
#ifndef VRANGE_VICTIMS_H
#define VRANGE_VICTIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reserve/rank.h"

typedef struct {
    ranking least;
    size_t next; /* the victims before it are gone, offered or used again */
    uint64_t ranked_at, ranking_ns;
    _Atomic uint64_t rankings; /* read without the lock */
} victims;

/* Ranks again, so that the victims cover `bytes`. */
void victims_rank(victims *v, uint64_t bytes);

/* Whether the victims may be ranked again: only a small part of the time is spent on ranking. */
bool victims_are_old(const victims *v);

/* Returns the next victim, or NULL if there are no more. */
const candidate *victims_next(victims *v);

/* Returns a victim whose pages a new range may take over: one of its arena and size that is worth no more than
 * `worth`. NULL if none is among the next ones. */
const candidate *victims_find_like(victims *v, const range *fresh, float worth);

/* In the child of a fork: the victims are ranges of the parent. */
void victims_forget(victims *v);

#endif
