/* How freed memory of the heap gets back to the kernel. */
#ifndef VRANGE_HEAP_OFFER_H
#define VRANGE_HEAP_OFFER_H

#include <stdbool.h>

bool heap_is_open(void);

/* For the caretaker, inside the gate: offers what has been idle for a while, or everything that is
 * idle if `at_once`. Returns whether something is idle still. */
bool heap_offer(bool at_once);

/* Whether so little memory is left that large blocks can't wait for the caretaker, which may run late. */
void heap_set_short(bool is_short);

#endif
