/* Leases: buffers that pin the memory under them while they live. */
#ifndef VRANGE_LEASE_H
#define VRANGE_LEASE_H

#include "python/support.h"

#include "vrange.h"

/* A lease that takes over one pin of the caller's, also if it returns NULL with an error set. */
PyObject *lease_of_pinned(uint64_t handle, Py_ssize_t bytes, int writable);

/* A lease over a range, which it pins. NULL: with an error set, or, without one, some content is lost. */
PyObject *lease_of_whole(uint64_t handle, Py_ssize_t bytes);

/* The memory under a lease. NULL with an error set: the object is no lease, or its pin was dropped. */
void *lease_memory(PyObject *lease, Py_ssize_t *bytes);

int lease_add_types(PyObject *module);

#endif
