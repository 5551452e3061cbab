/* Greenlets beside deep calls. */
#ifndef VRANGE_GREENLETS_H
#define VRANGE_GREENLETS_H

#include <stdbool.h>

#include "stacks/stack.h"

/* Before a deep call: sees to it that greenlets can't be switched out of it, if the process has
 * greenlet at all. -1 with an exception set. */
int greenlets_watch(void);

/* At a deep call's end, on its stack still: ends the greenlets that began in it. False: one of them
 * went on all the same, or may have begun unseen, and the stack can't be used again. */
bool greenlets_end(stack *s);

#endif
