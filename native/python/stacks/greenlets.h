/* Greenlets beside deep calls. */
#ifndef VRANGE_GREENLETS_H
#define VRANGE_GREENLETS_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

#include <stdbool.h>

#include "stacks/stack.h"

/* Before a deep call: prevents switches of greenlets out of it, if the process has greenlet at all. `modules`
 * is sys.modules. -1 with an exception set. */
int greenlets_watch(PyObject *modules);

/* At the end of a deep call, still on its stack: ends the greenlets that began in it. False if one of them
 * went on all the same, or may have begun unseen; then the stack can't be used again. */
bool greenlets_end(stack *s);

#endif
