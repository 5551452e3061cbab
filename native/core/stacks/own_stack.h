/* The own stack of a thread, made deep. */
#ifndef VRANGE_OWN_STACK_H
#define VRANGE_OWN_STACK_H

#include <stdbool.h>
#include <stddef.h>

#include "stacks/stack_state.h"

/* Describes the calling thread's own stack, and closes all but the usual part (VRANGE_STACK_USUAL_BYTES), which
 * is never closed. -ERANGE if it has less than
 * `least` bytes. */
int own_stack_of_thread(size_t least, stack **out);

/* The same for the main thread, after reserving the address space down to `bytes` below the top. The usual part
 * is `usual` bytes large. */
int own_stack_of_main(size_t bytes, size_t usual, stack **out);

/* Returns address space of main's stack if RLIMIT_AS or RLIMIT_DATA leave it less than it has: a limit was set
 * since. Any thread may ask for it; main does it, at its next call of own_stack_fit at the latest. Returns
 * main's thread id if main is another thread and has to, otherwise 0. */
int own_stack_ask_fit(void);
void own_stack_fit(stack *s); /* for the stack's own thread; async-signal-safe */

/* Opens all of the calling thread's own stack, so that the C library can give it to another thread. */
void own_stack_end(stack *s);

/* Makes the C library unmap the stack of the last thread that ended, if it keeps it. Under a limit of the
 * address space that could be all that there is. */
void own_stacks_return_ended(void);

/* The own stack that contains `address`; NULL if none. Async-signal-safe. */
stack *own_stack_around(const void *address);

/* All of them by number; NULL if that one is not in use. */
#define OWN_STACKS_MOST 4096u
uint32_t own_stacks_count(void);
stack *own_stack_at(uint32_t number);

/* After a trim that returned so many bytes: closes what was opened, if none of the frames, which end at `sp`,
 * lies there. The stack counts as deep until it is shallow, or a trim returns little. For the stack's own
 * thread. Async-signal-safe. */
void own_stack_close(stack *s, const char *sp, size_t returned);

/* In the child of a fork, where the other threads do not exist. */
void own_stacks_after_fork(void);

#endif
