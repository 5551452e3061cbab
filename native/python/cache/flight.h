/* Flights: one computation per key at a time (flight.c); waiting for them (flight_wait.c). */
#ifndef VRANGE_FLIGHT_H
#define VRANGE_FLIGHT_H

#include "python/hit.h"

/* A computation under way. */
struct flight {
    PyObject_HEAD
    flight *outer;       /* in whose computation it began; NULL: in none */
    flight *next;        /* of its key's, another one that could not wait for this */
    PyObject *loop;      /* the event loop that has to run for it; NULL: none */
    PyObject *waiters;   /* list of Waiters, or NULL */
    PyObject *waits_for; /* list of flights, one for each wait, or NULL */
    unsigned long thread; /* that has to run for it, by threading.get_ident */
    unsigned long seen, led; /* by which walk (flight_wait.c) */
    char landed;
    char stale; /* what it computes is not to be stored: its key was set or forgotten since */
};

enum waiter_state { WAITER_WAITS, WAITER_HAS_VALUE, WAITER_HAS_ERROR, WAITER_HAS_NOTHING };

/* Who waits for a flight. `state` and `value` are set, then `wake` is called. */
typedef struct {
    PyObject_HEAD
    PyObject *wake, *value;
    int state;
} waiter;

bool is_flight(PyObject *object);

/* threading.get_ident(), which is of a greenlet where that is what threads are made of. 0 with an error
 * set. */
unsigned long flight_thread(void);

/* Says it to all that wait. -1 with an error set; one that is set before stays. */
int flight_tell(flight *landed, int state, PyObject *value);

/* -1 with an error set. */
int flight_wait_add_types(PyObject *module);

#endif
