/* Deep stacks: they are taken from a pool and returned to it. */
#ifndef VRANGE_STACK_H
#define VRANGE_STACK_H

#include <stdbool.h>
#include <stddef.h>

#include "exported.h"
#include "stacks/stack_state.h"

/* Takes a pooled or new stack of exactly `bytes` (rounded up to pages). -ENOMEM if there is none. The
 * thread must have been armed (sigsegv.h). */
int stack_take(size_t bytes, bool automatic, stack **out) EXPORTED(stack_take);

/* Frees `used` bytes of the stack as `release` says, and returns the stack to the pool. */
void stack_give(stack *s, size_t used, int release) EXPORTED(stack_give);

/* Returns the address space of the stacks that no call runs on. Call inside the gate. */
void stacks_return_pooled(void);

/* Takes the stack out of use for ever, because frames still lie on it. Its memory stays readable. */
void stack_retire(stack *s) EXPORTED(stack_retire);

/* Claims an unused descriptor of `all` for the caller to fill; NULL if there is none. Raises `count`: signal
 * handlers look at the descriptors below it. */
stack *stack_claim(stack *all, uint32_t most, _Atomic uint32_t *count);

/* The stack that contains `address`, guards included; NULL if none. Async-signal-safe. */
stack *stack_around(const void *address);

/* The thread has ended, or this is a child in which it never existed. */
void stack_abandon_all(stack *innermost);
void stacks_after_fork(void);

#endif
