/* The bytes of a key beside its entry, roughly. */
#ifndef VRANGE_CACHE_KEY_WEIGHT_H
#define VRANGE_CACHE_KEY_WEIGHT_H

#include "python/support.h"

#include <stdbool.h>

/* Counts the parts of tuples and frozensets, which never change, and of nothing else: the same each time. Of
 * what is nested deeply only the outer parts count. Runs no Python. */
Py_ssize_t key_weight(PyObject *key);

/* Counts the fields of instances as well. They may change, so another call may return something else.
 * *has_fields: there were some. */
Py_ssize_t key_weight_with_fields(PyObject *key, bool *has_fields);

int key_weight_prepare(void);

#endif
