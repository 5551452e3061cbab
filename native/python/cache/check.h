/* Whether a core agrees with itself. */
#ifndef VRANGE_CACHE_CHECK_H
#define VRANGE_CACHE_CHECK_H

#include "python/support.h"

/* A method of CacheCore. */
PyObject *core_check(PyObject *object, PyObject *unused);

#endif
