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

/* The known Viewer for arrays like this one, borrowed. NULL, without an error set: none is known, or the
 * object is not an array that lies in memory row by row. */
PyObject *viewer_of_array(PyObject *object);

/* The bytes of such an array. */
vrange_part array_content(PyObject *array, PyObject *its_viewer);

int ndarray_add_type(PyObject *module);

#endif
