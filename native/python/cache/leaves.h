/* The type Leaves: finds the objects that a pickle leaves out. */
#ifndef VRANGE_CACHE_LEAVES_H
#define VRANGE_CACHE_LEAVES_H

#include "python/support.h"

int leaves_add_type(PyObject *module);

#endif
