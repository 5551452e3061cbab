/* Flights: computations under way, one per key at a time. */
#ifndef VRANGE_CACHE_FLIGHT_H
#define VRANGE_CACHE_FLIGHT_H

#include "python/cache/core.h"
#include "python/cache/stopwatch.h"

typedef struct flight {
    PyObject_HEAD
    cache_core *core;             /* a reference while the flight is under way */
    struct flight *previous, *following; /* in the core's list, while its entry refers to it */
    entry_no number;              /* its entry; 0: it was called off, and its result is not stored */
    int outcome;                  /* what the request counted as */
    key_hash hash;
    uint64_t asked_ns;
    struct flight *outer;         /* a reference: the flight in whose computation this one began, or NULL */
    PyObject *loop;               /* the event loop that has to run for it, or NULL */
    PyObject *waiters;            /* list of Waiters, or NULL (wait.c) */
    PyObject *waits_for;          /* list of flights, one for each wait, or NULL */
    PyObject *function, *args, *kwargs; /* references: the call that computes it (compute.c), or NULL */
    stopwatch watch;                    /* since it was called */
    unsigned long thread;         /* the thread that has to run for it, by threading.get_ident */
    unsigned long seen, led;      /* the last walk that visited it (wait.c) */
    char landed;
    char is_private;              /* its value was stored, and each waiter decodes an object of its own */
} flight;

bool is_flight(PyObject *object);

/* Begins a flight for a key that was absent in this version of the index. This thread leads it. The flight has
 * no number if the key was added meanwhile: look again. NULL with an error set. May run Python. */
flight *flight_begin(cache_core *self, PyObject *key, key_hash hash, uint32_t version, int outcome,
                     PyObject *loop);

/* Calls the flight off: no caller joins it any more, its result is not stored, and its entry is buried. */
void flight_call_off(cache_core *self, entry_no number);

/* Does the same, but leaves its entry. */
void flight_detach(flight *f);

/* Makes it the innermost flight of this context; flight_leave restores the flight around it. */
int flight_enter(flight *f);
void flight_leave(flight *f);

/* Lands with a value. NULL: with the error that is set, or with nothing. All waiters are woken, also if a
 * signal handler raises. Keeps the error that was set; -1 if waking raised one. May run Python. */
int flight_land(flight *f, PyObject *value);

/* forget_flights(led): in the child of a fork, ends all flights except `led`, the innermost one that this
 * thread leads, and the flights around it. */
PyObject *flight_forget_others(PyObject *module, PyObject *led);

/* set_copy(copy) */
PyObject *flight_set_copy(PyObject *module, PyObject *copy);

int flight_add_type(PyObject *module);

#endif
