#ifndef VRANGE_STACK_PAGES_H
#define VRANGE_STACK_PAGES_H

#include "stacks/stack.h"

/* Above here memory stays with the stack, whatever the policy. */
static inline char *stack_kept_low(const stack *s) { return s->top - VRANGE_STACK_KEPT_BYTES; }

/* The warning zone as it was before somebody reached it. */
void stack_close_warning(stack *s);

/* Gives `used` bytes back as `release` says; more than what is kept. */
void stack_give_back(stack *s, size_t used, int release);

#endif
