#ifndef VRANGE_STACK_PAGES_H
#define VRANGE_STACK_PAGES_H

#include "stacks/stack.h"

/* Memory above this address stays with the stack, whatever the policy. */
static inline char *stack_kept_low(const stack *s) { return s->top - VRANGE_STACK_KEPT_BYTES; }

/* Closes the warning zone again and discards its pages. */
void stack_close_warning(stack *s);

/* Frees `used` bytes as `release` says. `used` exceeds the kept part. */
void stack_give_back(stack *s, size_t used, int release);

#endif
