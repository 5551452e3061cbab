/* Threads whose own stacks are deep, as the interpreter sees them. */
#ifndef VRANGE_PYTHON_DEEP_THREADS_H
#define VRANGE_PYTHON_DEEP_THREADS_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

/* Finds the limits, and observes what the interpreter takes for objects and frames. Returns NULL, or why deep
 * stacks are impossible here. */
const char *deep_stacks_prepare(void);

/* Functions of vrange._deep. */
PyObject *deep_threads_main(PyObject *module, PyObject *args);
PyObject *deep_threads_switch(PyObject *module, PyObject *args);
PyObject *deep_threads_default_stack(PyObject *module, PyObject *args);
PyObject *deep_threads_again(PyObject *module, PyObject *unused);

#endif
