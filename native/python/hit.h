/* The extension module vrange._hit. */
#ifndef VRANGE_HIT_H
#define VRANGE_HIT_H

#include "python/support.h"

/* Has `add_to` called with the module when it is imported. Rooms above call this from a constructor. */
void hit_register(int (*add_to)(PyObject *module));

#endif
