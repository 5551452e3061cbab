/* The recursion limits of one thread. */
#ifndef VRANGE_RECURSION_H
#define VRANGE_RECURSION_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

#include "stacks/stack.h"

/* A thread's limits, for restoring them. */
typedef struct {
    PyThreadState *thread;
    int levels;   /* added to Python's own count */
    int c_levels; /* added to C's, if that is another count */
    int c_at_entry, python_at_entry, limit_at_entry;
} raised_limits;

/* Finds where this interpreter keeps its limits. Returns NULL if ready, or why they can't be raised here. */
const char *recursion_find(void);

/* Raises the calling thread's limits by what the stack can hold. -1 with an exception set. */
int recursion_raise(stack *s, raised_limits *out);

/* Subtracts exactly what was added; `outer` is the deep stack that the thread is on again, or NULL. */
void recursion_restore(stack *s, const raised_limits *raised, const stack *outer);

/* Returns (offset of Python's count, offset of C's, whether stack bounds can be set, refusal), for tests. */
PyObject *recursion_describe(void);

/* Returns (levels of Python that this thread has left, levels of C or None). */
PyObject *recursion_left(void);

#endif
