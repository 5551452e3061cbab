/* What the files of the extension module vrange._hit share. */
#ifndef VRANGE_HIT_H
#define VRANGE_HIT_H

#define PY_SSIZE_T_CLEAN
#include "abi3.h"

#include "vrange.h"

/* What a lease holds: a range, or blocks of an array. */
typedef struct lease_pin {
    void (*release)(const struct lease_pin *pin);
    uint64_t handle;
    vrange_array *array;
    size_t first_block, blocks;
    PyObject *owner; /* what keeps the memory mapped; NULL: the pin itself does */
} lease_pin;

/* A lease over memory that the caller has pinned; the pin is the lease's from now on, also where NULL
 * is returned. */
PyObject *lease_over(lease_pin pin, void *address, Py_ssize_t bytes, int writable);
uint64_t lease_handle(PyObject *lease); /* 0: not of a range, or released */
int lease_add_type(PyObject *module);

/* A vrange_regenerate whose context is a callable: (address, offset, bytes). */
int regenerate_by_python(void *to, size_t offset, size_t bytes, void *context);
PyObject *hit_python_regenerator(PyObject *module, PyObject *unused);

int hot_add_type(PyObject *module);

/* Raises what a negative errno of the core means. Always returns NULL. */
PyObject *raise_errno(int error, const char *doing);

#endif
