/* Python.h, for one library that runs on every CPython from 3.11 on, whichever built it.
 *
 * The headers of 3.13.0 take None for immortal there too where it is not: what they make of
 * Py_RETURN_NONE takes a reference away from a 3.11 at every call, until it ends the process. */
#ifndef VRANGE_ABI3_H
#define VRANGE_ABI3_H

#include <Python.h>

#undef Py_RETURN_NONE
#define Py_RETURN_NONE return Py_NewRef(Py_None)

#endif
