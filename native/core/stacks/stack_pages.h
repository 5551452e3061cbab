/* The pages that a deep call leaves on its stack: how many they are, and how they are freed. */
#ifndef VRANGE_STACK_PAGES_H
#define VRANGE_STACK_PAGES_H

#include "exported.h"
#include "stacks/stack_state.h"

/* Memory above this address stays with the stack, whatever the policy. */
static inline char *stack_kept_low(const stack *s) { return s->top - VRANGE_STACK_KEPT_BYTES; }

/* Closes the warning zone again and discards its pages. */
void stack_close_warning(stack *s);

/* Frees `used` bytes as `release` says. `used` exceeds the kept part. */
void stack_give_back(stack *s, size_t used, int release);

/* How far down the calls on this stack went, by the page tables; 0 if no further than the kept part. */
size_t stack_used(stack *s) EXPORTED(stack_used);

/* Frees the part below the frames that end at `sp`; returns the bytes freed. Async-signal-safe. */
size_t stack_trim_below(char *low, char *sp, int release);
/* `trim`: a trim returned them, and is counted; otherwise a release did. */
void stack_count_returned(size_t bytes, bool trim);
uint64_t stack_returned_bytes(void);
uint64_t stack_trims(void);

#endif
