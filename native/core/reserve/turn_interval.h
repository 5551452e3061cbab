/* How long the caretaker sleeps between two turns. */
#ifndef VRANGE_TURN_INTERVAL_H
#define VRANGE_TURN_INTERVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "reserve/below_set_limit.h"

#define NEAR_RESERVES 2 /* within this many times the reserve, the limit is near */

/* What a turn needs to know about free memory. */
typedef struct {
    uint64_t below_limits; /* UINT64_MAX: there is no limit, or none is known */
    kept_free below_set;   /* below the limit that the program has set */
    uint64_t of_machine;   /* 0: unknown */
    bool is_near;   /* that limit is near */
    bool is_enough; /* nothing has to be offered */
    bool can_offer; /* false on the eager rung, and if the process locks its memory: the reserve is kept free */
} free_memory;

typedef struct {
    uint64_t sleep_ns;
    bool needs_offered; /* the thread could sleep longer if the whole reserve was offered */
} rest;

/* After a turn. `slept_ns` is how long the thread slept before it, and 0 after a call; `taken` are the bytes
 * that the kernel took meanwhile. Inside the gate. */
rest rest_after(uint64_t slept_ns, const free_memory *now, uint64_t reserve_bytes, uint64_t taken,
                bool in_a_hurry);
void rest_forget(void);

#endif
