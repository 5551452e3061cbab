/* Compute: a value that is absent is computed and stored. */
#ifndef VRANGE_CACHE_COMPUTE_H
#define VRANGE_CACHE_COMPUTE_H

#include "python/cache/flight.h"

/* A key that was looked up and had no value. In one register: a memoised recursion passes it at each level. */
typedef struct {
    key_hash hash;
    uint32_t version; /* as in looked_up */
} missed_key;

/* Returns the function's result, which it stores, the value of another caller's computation, or the value that
 * the key has by now. It looks the key up again only if the index has changed since. `kwargs` may be NULL.
 * Steals the references to key, args and kwargs. May run Python. */
PyObject *core_answer(cache_core *self, PyObject *key, missed_key missed, PyObject *function, PyObject *args,
                      PyObject *kwargs);

/* Counts a computation and its time. */
void count_regenerated(const flight *f, uint64_t took_ns);

#endif
