/* The type Room: bytes reserved for a copy. */
#ifndef VRANGE_CACHE_ROOM_TYPE_H
#define VRANGE_CACHE_ROOM_TYPE_H

#include "python/support.h"

int room_add_type(PyObject *module);

#endif
