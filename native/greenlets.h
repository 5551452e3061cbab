#ifndef VRANGE_GREENLETS_H
#define VRANGE_GREENLETS_H

#include "stack.h"

/* Sees to it that greenlets can't be switched out of a deep call, if the process has greenlet at all.
 * -1 with an exception set. */
int greenlets_watch(void);

/* Whether a greenlet has frames on the stack that a later switch would go back to. */
bool greenlets_are_left(const stack *s);

#endif
