/* The deep stack that the calling thread runs on. */
#include "stacks/stack_current.h"

static _Thread_local stack *current;

stack *stack_current(void) { return current; }

void stack_set_current(stack *now) { current = now; }
