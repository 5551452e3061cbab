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

/* Opens all of the calling thread's own stack, so that the C library can give it to another thread. */
void own_stack_end(stack *s);

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
