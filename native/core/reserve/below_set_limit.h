/* Keeping memory free below the limit that the program has set for its resident set. */
#ifndef VRANGE_BELOW_SET_LIMIT_H
#define VRANGE_BELOW_SET_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t left; /* UINT64_MAX if no limit is set */
    uint64_t wanted;
    bool is_short; /* less than that is left */
    bool by_offering; /* offered bytes do not count: nothing has to be discarded */
} kept_free;

/* Wants as much as the reserve has, within bounds. */
kept_free look_below_set_limit(uint64_t reserve_bytes);

/* Discards what is missing. Inside the gate, one thread at a time. Returns how many bytes the caller has to
 * offer instead, where that is enough. */
uint64_t return_memory(const kept_free *below_set);

/* The same for a thread that is going to store `bytes`, if as much was stored since the last look as was
 * left then in part: the caretaker may be waiting for a processor. Inside the gate. */
uint64_t return_before_use(size_t bytes);

/* In a child that was made without fork handlers: the holder of the lock does not exist. */
void below_set_renew_lock(void);

#endif
