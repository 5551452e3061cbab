/* Looking at a core as a whole: how many values there are, under which keys, and in which ranges. */
#ifndef VRANGE_CACHE_INSPECT_H
#define VRANGE_CACHE_INSPECT_H

#include "python/cache/core.h"

/* The key's entry if it has a value; 0: none; FIND_FAILED with an error set. May run Python. */
entry_no core_find(cache_core *self, PyObject *key);

/* Methods of CacheCore. */
PyObject *core_count(PyObject *object, PyObject *unused);
PyObject *core_entries(PyObject *object, void *unused);
PyObject *core_keys(PyObject *object, PyObject *unused);
PyObject *core_hot_keys(PyObject *object, PyObject *unused);
PyObject *core_handles(PyObject *object, PyObject *keys);
PyObject *core_cool(PyObject *object, PyObject *keys);
PyObject *core_flight(PyObject *object, PyObject *key);
PyObject *core_uses(PyObject *object, PyObject *key);

#endif
