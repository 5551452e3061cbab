/* Runs a function on another stack within the same thread.
 *
 * Each architecture has an implementation in assembly, with unwind information, so that debuggers,
 * exceptions and the forced unwinding of pthread_exit pass through it. Other architectures use ucontext. */
#ifndef VRANGE_SWITCH_H
#define VRANGE_SWITCH_H

#include "exported.h"

/* Calls function(argument) with the stack pointer at `top` (16-byte aligned), and returns when it returns. */
void switch_call(void *top, void (*function)(void *), void *argument) EXPORTED(switch_call);

#endif
