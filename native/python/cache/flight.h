/* Flights: computations under way, one per key at a time (flight.c), and waiting for them (wait.c). */
#ifndef VRANGE_CACHE_FLIGHT_H
#define VRANGE_CACHE_FLIGHT_H

#include "python/cache/core.h"

struct flight {
    PyObject_HEAD
    cache_core *core;             /* a reference while it is under way */
    struct flight *previous, *following; /* of the core's, while its entry refers to it */
    entry_no number;              /* its entry; 0: it was called off, and what it computes is not stored */
    int outcome;                  /* what the request counted as */
    key_hash hash;
    uint64_t asked_ns;
    struct flight *outer;         /* a reference: in whose computation this one began; NULL: in none */
    PyObject *loop;               /* the event loop that has to run for it; NULL: none */
    PyObject *waiters;            /* list of Waiters, or NULL (wait.c) */
    PyObject *waits_for;          /* list of flights, one for each wait, or NULL */
    unsigned long thread;         /* that has to run for it, by threading.get_ident */
    unsigned long seen, led;      /* by which walk (wait.c) */
    char landed;
};

enum waiter_state { WAITER_WAITS, WAITER_HAS_VALUE, WAITER_HAS_ERROR, WAITER_HAS_NOTHING };

bool is_flight(PyObject *object);
/* Begins a flight for an absent key, led here. It has no number where the key came meanwhile: look again. NULL
 * with an error set. May run Python. */
flight *flight_begin(cache_core *self, PyObject *key, key_hash hash, const looked_up *absent, PyObject *loop);
/* Nobody joins it any more, and what it computes is not stored. */
void flight_call_off(cache_core *self, entry_no number);
void flight_detach(flight *f); /* the same, and its entry stays */
/* Is led in this context from now on; and the one around it again. */
int flight_enter(flight *f);
void flight_leave(flight *f);
/* Lands with a value, or NULL: with the error that is set, or nothing. Those who wait are told whatever
 * interrupts. Keeps the error; -1 with one set. May run Python. */
int flight_land(flight *f, PyObject *value);
/* Counts what it computed. */
void flight_regenerated(const flight *f, uint64_t took_ns);
/* Tells all who wait. -1 with an error set. */
int flight_tell(flight *landed, int state, PyObject *value);
/* forget_flights(led): in the child of a fork, all flights are over but the innermost one that is led here
 * and those around it. */
PyObject *flight_forget_others(PyObject *module, PyObject *led);
int flight_add_type(PyObject *module);
int wait_add_types(PyObject *module);

/* ---- compute.c, compute_async.c --------------------------------------------------------------- */

typedef struct {
    PyObject *function;
    PyObject *args;   /* tuple */
    PyObject *kwargs; /* dict or NULL */
} call_parts;

/* The value, from wherever it is had. May run Python. */
PyObject *core_answer(cache_core *self, PyObject *key, key_hash hash, const call_parts *call);
/* An awaitable of the value, of a coroutine function; or of another's Flight. */
PyObject *core_answer_async(cache_core *self, PyObject *key, PyObject *function, PyObject *loop);
int compute_async_add_type(PyObject *module);

#endif
