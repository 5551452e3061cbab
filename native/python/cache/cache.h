/* The type CacheCore. */
#ifndef VRANGE_CACHE_CACHE_H
#define VRANGE_CACHE_CACHE_H

#include "python/support.h"

#include <stdbool.h>

bool is_core(PyObject *object);

int core_add_type(PyObject *module);

#endif
