/* ndarrays over a lease: the type Viewer. */
#ifndef VRANGE_CACHE_NDARRAY_H
#define VRANGE_CACHE_NDARRAY_H

#include "python/support.h"

#include <stdbool.h>

#include "vrange.h"

/* A Viewer makes an ndarray over a lease, or over a bytes object. NULL with an error set. */
bool is_viewer(PyObject *object);
PyObject *view_lease(PyObject *viewer, PyObject *lease);
PyObject *view_bytes(PyObject *viewer, PyObject *bytes);

/* Whether an object is an ndarray, and of no subclass. False before NumPy's table is known. */
bool is_array(PyObject *object);

/* Another array over the memory of an array that `viewer` made. Callers may have changed the shape and dtype
 * of that array since; the new one is as the viewer makes it. */
PyObject *view_again(PyObject *viewer, PyObject *array);

/* Whether an array that `viewer` made is still as it was made. */
bool is_as_made(PyObject *array, PyObject *viewer);

/* A read-only array over the memory of another, which the new one keeps alive. */
PyObject *view_of_array(PyObject *array);

/* The known Viewer for arrays like this one, borrowed. NULL, without an error set: none is known, or the
 * object is not an array that lies in memory row by row. */
PyObject *viewer_of_array(PyObject *object);

/* The bytes of such an array. */
vrange_part array_content(PyObject *array, PyObject *its_viewer);

int ndarray_add_type(PyObject *module);

#endif
