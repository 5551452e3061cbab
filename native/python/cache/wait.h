/* Waiting for flights. */
#ifndef VRANGE_CACHE_WAIT_H
#define VRANGE_CACHE_WAIT_H

#include "python/support.h"

int wait_add_functions(PyObject *module);

#endif
