/* Calls of the program's that matter to deep stacks, noticed. */
#ifndef VRANGE_WATCHED_CALLS_H
#define VRANGE_WATCHED_CALLS_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

/* A function of vrange._deep: watches from now on. `then` is called after each call that set a limit. */
PyObject *watched_calls_begin(PyObject *module, PyObject *then);

#endif
