/* The recursion limits of one thread. */
#ifndef VRANGE_RECURSION_H
#define VRANGE_RECURSION_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

#include "stacks/stack.h"

/* What a thread's limits were, to be restored. */
typedef struct {
    PyThreadState *thread;
    int levels;   /* added to Python's own count */
    int c_levels; /* added to C's, where that is another one */
    int c_at_entry, python_at_entry, limit_at_entry;
} raised_limits;

/* Finds where this interpreter keeps its limits. NULL: ready; else why they can't be raised here. */
const char *recursion_find(void);

/* Raises the calling thread's limits by what the stack can carry. -1 with an exception set. */
int recursion_raise(stack *s, raised_limits *out);

/* Takes back exactly what was added; `outer` is the deep stack the thread is on again, or NULL. */
void recursion_restore(stack *s, const raised_limits *raised, const stack *outer);

/* (offset of Python's count, offset of C's, whether stack bounds can be told), for tests. */
PyObject *recursion_describe(void);

/* (Python's levels left to this thread, C's or None). */
PyObject *recursion_left(void);

#endif
