/* How far a deep call may go: by its stack, and by the memory that is left. */
#ifndef VRANGE_STACK_ROOM_H
#define VRANGE_STACK_ROOM_H

#include <stdbool.h>
#include <stddef.h>

#include "os/exported.h"
#include "stacks/stack.h"

/* Around each call. stack_room_end closes again what was opened step by step. */
void stack_room_begin(stack *s);
void stack_room_end(stack *s);

/* A touch of `address`, which was closed, by frames that end at `sp`: true where it is open now, perhaps with
 * the recursion cut short. Async-signal-safe. */
bool stack_room_open(stack *s, char *address, char *sp);

/* Whether the kernel found no room for a signal's frame at `sp`; there is some if so. Async-signal-safe. */
bool stack_room_for_signal(stack *s, char *sp);

/* What pymalloc_observe tells. */
void stack_room_observe(ptrdiff_t bytes) EXPORTED(stack_room_observe);

#endif
