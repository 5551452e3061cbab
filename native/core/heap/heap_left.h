/* How much memory is left below the limits, as far as the heap knows: the caretaker looks and tells it, and new
 * pages of large blocks are subtracted until it looks again. */
#ifndef VRANGE_HEAP_LEFT_H
#define VRANGE_HEAP_LEFT_H

#include <stddef.h>
#include <stdint.h>

/* With less left below the limits, whatever is freed is offered at the next turn. */
#define HEAP_NEAR_BYTES (128ull << 20)
/* With less left, the threads that use memory help. */
#define HEAP_SHORT_BYTES (32ull << 20)

/* `left` bytes are left below the limits. Of these, freed memory may be idle to a part until `until_ns`; a
 * thread that frees more offers it itself. */
void heap_bound_idle(uint64_t left, uint64_t until_ns);
/* It is not known any more how much is left. */
void heap_forget_left(void);

/* How many freed bytes may be idle if `left` bytes are left, and now. */
uint64_t heap_idle_most_of(uint64_t left);
uint64_t heap_idle_most(uint64_t now_ns);

/* Subtracts the new pages of a block, and returns what is left; UINT64_MAX if that is not known. If it may have
 * become little since the caretaker looked, waits until the caretaker has looked again. */
uint64_t heap_left_with_new(size_t bytes);

#endif
