/* Going on on another stack, inside the same thread.
 *
 * Implemented once an architecture, in assembly with unwind information, so that debuggers,
 * exceptions and the forced unwinding of pthread_exit pass through; elsewhere with ucontext. */
#ifndef VRANGE_SWITCH_H
#define VRANGE_SWITCH_H

/* Calls function(argument) with the stack pointer at `top` (16-byte aligned) and comes back. */
void switch_call(void *top, void (*function)(void *), void *argument);

#endif
