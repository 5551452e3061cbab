/* A call on a deep stack, once its settings and arguments are known. */
#ifndef VRANGE_DEEP_RUN_H
#define VRANGE_DEEP_RUN_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

#include "stacks/stack.h"

typedef struct {
    size_t bytes; /* 0: automatic */
    int release;
    const char *name;
} deep_settings;

typedef struct {
    stack *on; /* NULL: on the caller's stack */
    PyObject *function, *const *arguments;
    size_t count; /* of the positional ones */
    PyObject *names;
    PyObject *result;
} deep_job;

/* Calls the function, on a deep stack unless the thread is on one with room left. Returns the call's result;
 * NULL with an exception set. */
PyObject *deep_run(const deep_settings *how, deep_job *call);

/* Once, before the first call. Returns the exception that is raised if a stack can't be allocated, borrowed;
 * NULL with an exception set. */
PyObject *deep_run_prepare(PyObject *vrange_error);

#endif
