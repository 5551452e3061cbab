/* Threads whose own stacks are deep, and how vrange notices that they are shallow again. */
#ifndef VRANGE_DEEP_THREADS_H
#define VRANGE_DEEP_THREADS_H

#include <stddef.h>
#include <stdint.h>

#include "exported.h"
#include "stacks/stack_state.h"

/* Makes the calling thread's own stack deep until the thread ends, if it has at least `least` bytes. -errno:
 * all is as it was; -ERANGE if the stack is smaller. */
int deep_threads_begin(size_t least, stack **out) EXPORTED(deep_threads_begin);

/* The same for the main thread. Its stack grows to `bytes`; without vrange it would have `usual`. */
int deep_threads_begin_main(size_t bytes, size_t usual, stack **out) EXPORTED(deep_threads_begin_main);

/* Starts the thread that looks, in the child of a fork too. */
void deep_threads_watch(void) EXPORTED(deep_threads_watch);

/* After limits of the process were set: returns address space that they leave no room for. */
void deep_threads_fit_limits(void) EXPORTED(deep_threads_fit_limits);

/* Looks for threads that are shallow again. Returns how long until the next look. Inside the gate. */
uint64_t deep_threads_look(void);

#endif
