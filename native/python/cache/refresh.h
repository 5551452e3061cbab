/* Refresh: a stale value is answered, and computed again in the background. */
#ifndef VRANGE_CACHE_REFRESH_H
#define VRANGE_CACHE_REFRESH_H

#include "python/cache/lookup.h"

typedef struct {
    cache_core *core;
    PyObject *key;
    uint32_t stamp; /* of the stale value */
    PyObject *function, *args;
    PyObject *kwargs; /* or NULL */
    PyObject *loop;   /* the event loop that awaits what the function returns, or NULL */
} refresh_call;

/* Has the value computed again, unless that is under way, and returns the stale one. NULL with an error set:
 * then it has dropped the value. May run Python. */
PyObject *refresh_stale(const refresh_call *call, PyObject *value);

/* The value that was found, after the same if it is stale; the function takes no arguments. */
PyObject *refresh_by(cache_core *self, PyObject *key, const looked_up *found, PyObject *function,
                     PyObject *loop);

/* renew(key, stamp, value, cost_ns) */
PyObject *refresh_renew(PyObject *object, PyObject *const *args, Py_ssize_t count);

#endif
