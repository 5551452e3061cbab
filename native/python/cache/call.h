/* The type CachedFunction. */
#ifndef VRANGE_CACHE_CALL_H
#define VRANGE_CACHE_CALL_H

#include "python/support.h"

int call_add_type(PyObject *module);

#endif
