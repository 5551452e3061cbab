/* Python.h for one library that runs on every CPython from 3.11 on, whichever version built it.
 *
 * The headers of 3.13.0 treat None as immortal even where it is not. Their Py_RETURN_NONE drops one
 * reference to None at every call under 3.11, until that ends the process. */
#ifndef VRANGE_ABI3_H
#define VRANGE_ABI3_H

#include <Python.h>

#undef Py_RETURN_NONE
#define Py_RETURN_NONE return Py_NewRef(Py_None)

#endif
