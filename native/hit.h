/* What the files of the extension module vrange._hit share. */
#ifndef VRANGE_HIT_H
#define VRANGE_HIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "vrange.h"

/* A lease over `bytes` of a range that the caller has pinned; the pin is the lease's from now on,
 * also where NULL is returned. */
PyObject *lease_over(uint64_t handle, void *address, Py_ssize_t bytes, int writable);
uint64_t lease_handle(PyObject *lease); /* 0: not a lease, or released */
int lease_add_type(PyObject *module);

int hot_add_type(PyObject *module);

/* Raises what a negative errno of the core means. Always returns NULL. */
PyObject *raise_errno(int error, const char *doing);

#endif
