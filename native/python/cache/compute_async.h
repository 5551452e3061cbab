/* Computing by a coroutine. */
#ifndef VRANGE_CACHE_COMPUTE_ASYNC_H
#define VRANGE_CACHE_COMPUTE_ASYNC_H

#include "python/cache/core.h"

/* An awaitable of the value, which a coroutine function computes, or of another caller's Flight. */
PyObject *core_answer_async(cache_core *self, PyObject *key, PyObject *function, PyObject *loop,
                            bool has_waited);

int compute_async_add_type(PyObject *module);

#endif
