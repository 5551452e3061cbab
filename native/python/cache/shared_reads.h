/* The type SharedReads: a shared cache's lookups that need no more than the index and one read. */
#ifndef VRANGE_CACHE_SHARED_READS_H
#define VRANGE_CACHE_SHARED_READS_H

#include "python/support.h"

#include <stdbool.h>

bool is_shared_reads(PyObject *object);

/* The value of a key. NULL without an error set: the caller has to look further. May run Python; other threads
 * may run meanwhile. */
PyObject *shared_reads_find(PyObject *reads, PyObject *key);

int shared_reads_add_type(PyObject *module);

#endif
