/* Waiters: the threads and tasks that wait for a flight, and telling them that it landed. */
#ifndef VRANGE_CACHE_WAITER_H
#define VRANGE_CACHE_WAITER_H

#include "python/support.h"

#include <stdbool.h>

enum waiter_state {
    WAITER_WAITS,
    WAITER_HAS_VALUE,
    WAITER_HAS_ERROR,
    WAITER_HAS_NOTHING,
    WAITER_HAS_TEMPLATE, /* a value of which each waiter makes a copy of its own */
};

bool is_waiter(PyObject *object);

/* Tells all waiters of a list, which it takes over; NULL: none. Interrupts do not keep it from telling the
 * rest. -1 with an error set. May run Python. */
int waiters_tell(PyObject *waiters, int state, PyObject *value);

int waiter_add_type(PyObject *module);

#endif
