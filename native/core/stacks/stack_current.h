/* Which deep stack the calling thread runs on. */
#ifndef VRANGE_STACK_CURRENT_H
#define VRANGE_STACK_CURRENT_H

#include "exported.h"
#include "stacks/stack_state.h"

/* The deep stack that the calling thread runs on; NULL if it runs on its own stack. */
stack *stack_current(void) EXPORTED(stack_current);
void stack_set_current(stack *now) EXPORTED(stack_set_current);

#endif
