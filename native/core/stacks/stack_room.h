/* How far a deep call may go: limited by its stack, and by the memory that is left. */
#ifndef VRANGE_STACK_ROOM_H
#define VRANGE_STACK_ROOM_H

#include <stdbool.h>
#include <stddef.h>

#include "exported.h"
#include "stacks/stack_state.h"

/* Sets the bounds of the C stack in the interpreter; NULL before 3.14. Async-signal-safe. */
extern int (*stack_set_bounds)(void *thread, void *low, size_t bytes)
    EXPORTED(stack_set_bounds);

/* The interpreter's state of the calling thread, or NULL; NULL: unknown. Async-signal-safe. */
extern void *(*stack_thread_now)(void)EXPORTED(stack_thread_now);

#define STACK_LOOK_LEAST ((size_t)16 << 10) /* a part of the frames */

/* Called before each deep call. */
static inline void stack_room_begin(stack *s) {
    s->cut = s->cut_levels = 0;
    s->is_cut = s->was_cut = s->is_refused = false;
    s->thread = NULL;
    s->base = s->top;
    s->frame_bytes = s->room = 0;
    s->unlooked_bytes = 0;
    s->look_after = STACK_LOOK_LEAST;
}

void stack_room_close(stack *s);

/* Called after each deep call: closes again what was opened step by step. */
static inline void stack_room_end(stack *s) {
    if (s->needed || s->open_low < s->first_low) stack_room_close(s);
}

/* Handles a touch of `address`, which was closed, by frames that end at `sp`. True if it is open now; the
 * recursion may have been cut short. Async-signal-safe. */
bool stack_room_open(stack *s, char *address, char *sp);

/* Whether the kernel found no room for a signal's frame at `sp`. If so, there is room now.
 * Async-signal-safe. */
bool stack_room_for_signal(stack *s, char *sp);

/* The interpreter's thread state of an own stack may be gone, because the thread goes on without Python: then
 * its counts are not touched any more. Async-signal-safe. */
void stack_room_settle(stack *s) EXPORTED(stack_room_settle);

/* Receives the bytes that the interpreter takes for its frames. False refuses the allocation. */
bool stack_room_observe(ptrdiff_t bytes) EXPORTED(stack_room_observe);

#endif
