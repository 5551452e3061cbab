/* How freed memory of the heap gets back to the kernel. */
#ifndef VRANGE_HEAP_OFFER_H
#define VRANGE_HEAP_OFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/heap_zone.h"

/* With less left below the limits, whatever is freed is offered at the next turn. */
#define HEAP_NEAR_BYTES (128ull << 20)
/* With less left, the threads that use memory help. */
#define HEAP_SHORT_BYTES (32ull << 20)

bool heap_is_open(void);

/* For the caretaker, inside the gate: offers what has been idle for a while, or everything that is
 * idle if `at_once`. Returns whether something is idle still. */
bool heap_offer(bool at_once);

/* Near a limit, of which `left` bytes are left: offers what has not been used for some milliseconds, or all. */
void heap_offer_near(uint64_t left);

/* `left` bytes are left below the limits. Of these, freed memory may be idle to a part until `until_ns`; a
 * thread that frees more offers it itself. */
void heap_bound_idle(uint64_t left, uint64_t until_ns);
/* The same, less new pages of a block, and when it was told; UINT64_MAX if it is not known any more. */
uint64_t heap_use_left(uint64_t now_ns, size_t bytes, uint64_t *looked_ns);
/* It is not known any more how much is left. */
void heap_forget_left(void);

/* How many freed bytes may be idle, and offering those of a zone. Inside the gate. */
uint64_t heap_idle_most(uint64_t now_ns);
void heap_offer_idle(heap_zone *zone);

/* Discards what has been offered for long, and was not used again. Returns in how many nanoseconds more is due,
 * UINT64_MAX if nothing is offered. Inside the gate. */
uint64_t heap_discard_unused(void);

#endif
