/* Calls of the program's that matter to vrange, noticed. */
#ifndef VRANGE_WATCHED_CALLS_H
#define VRANGE_WATCHED_CALLS_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

/* From now on, a call that sets a limit of the process returns the address space that vrange does not use. */
void watched_calls_of_limits(void);

/* Functions of vrange._deep. A function is called after each call that set a limit. */
PyObject *watched_calls_after_limits(PyObject *module, PyObject *function);
/* From now on, handlers and masks that other code sets leave deep stacks their signal. */
PyObject *watched_calls_of_handlers(PyObject *module, PyObject *unused);

#endif
