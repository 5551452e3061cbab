/* Asks threads to trim their own stacks, by a signal whose handler runs on the stack that it trims. */
#ifndef VRANGE_IDLE_THREADS_H
#define VRANGE_IDLE_THREADS_H

#include <stdbool.h>

#include "stacks/stack_state.h"

/* Registers the calling thread, which may be main, with its own stack. It is asked to trim only by
 * idle_ask_thread, unless it is registered as others are, too. */
int idle_register_own(stack *own);

/* Makes our handler of the signal the first one again, if the program has installed one since: without it
 * no thread is asked. Inside the gate. */
void idle_look(void);

/* Asks such a thread to trim and close its own stack, whether it waits or runs, and does not wait for it. False
 * if it can't be asked now. */
bool idle_ask_thread(int thread_id);

void idle_after_fork(void);

#endif
