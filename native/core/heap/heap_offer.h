/* How freed memory of the heap gets back to the kernel. */
#ifndef VRANGE_HEAP_OFFER_H
#define VRANGE_HEAP_OFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/heap_zone.h"

bool heap_is_open(void);

/* For the caretaker, inside the gate: offers what has been idle for a while, or everything that is
 * idle if `at_once`. Returns whether something is idle still. */
bool heap_offer(bool at_once);

/* Near a limit, of which `left` bytes are left: offers what has not been used for some milliseconds, or all. */
void heap_offer_near(uint64_t left);

/* Offers what is idle in a zone. Inside the gate. */
void heap_offer_idle(heap_zone *zone);

/* Discards what has been offered for long, and was not used again. Returns in how many nanoseconds more is due,
 * UINT64_MAX if nothing is offered. Inside the gate. */
uint64_t heap_discard_unused(void);

#endif
