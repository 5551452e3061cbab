/* Compute: a value that is absent is computed and stored. */
#ifndef VRANGE_CACHE_COMPUTE_H
#define VRANGE_CACHE_COMPUTE_H

#include "python/cache/flight.h"

typedef struct {
    PyObject *function;
    PyObject *args;   /* tuple */
    PyObject *kwargs; /* dict or NULL */
} call_parts;

/* The cached value, or another caller's, or the computed one. May run Python. */
PyObject *core_answer(cache_core *self, PyObject *key, key_hash hash, const call_parts *call);

/* Counts what a flight computed. */
void count_regenerated(const flight *f, uint64_t took_ns);

#endif
