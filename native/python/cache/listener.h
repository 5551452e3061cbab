/* The listener of a cache: a callable that is called for each entry that the cache removed by itself.
 *
 * Entries that left are noted while the state is being changed. The listener is called once the state is whole,
 * the cache holds no lock and pins no range. It runs in the thread whose call found that the entry left. */
#ifndef VRANGE_CACHE_LISTENER_H
#define VRANGE_CACHE_LISTENER_H

#include "python/cache/core.h"

/* Why an entry left. The listener gets the word of the same place in CAUSES. */
typedef enum {
    LEFT_EVICTED, /* for a bound, or for room in the address space */
    LEFT_EXPIRED,
    LEFT_PURGED,  /* the kernel took it, or near the limit another value took its place */
    LEFT_REFUSED, /* its value could not be stored, or could not be decoded any more */
    NOT_TOLD,      /* the program removed or replaced it, or it stayed in the parent of a fork */
} leave_cause;

/* Notes that a key left. Runs no Python. Without memory for the note, the listener is not called for it. */
void listener_note(cache_core *self, PyObject *key, leave_cause cause);

/* Calls the listener with what was noted. An Exception that it raises goes to sys.unraisablehook. What a signal
 * handler raises meanwhile is the caller's, and so is a KeyboardInterrupt, or another exception that is no
 * Exception: -1 with it set; an error that was set before is its context. Otherwise keeps an error that is set.
 * Runs Python: call it once the state is whole, with no range pinned. */
int listener_call(cache_core *self);

static inline int listener_tell(cache_core *self) { return self->untold_count ? listener_call(self) : 0; }

/* Calls the listener, and returns the result. Steals it, and returns NULL, if listener_tell fails. */
static inline PyObject *listener_pass(cache_core *self, PyObject *result) {
    if (listener_tell(self) == 0) return result;
    Py_XDECREF(result);
    return NULL;
}

/* Drops what was noted. May run Python. */
void listener_forget(cache_core *self);

int listener_visit(const cache_core *self, visitproc visit, void *arg);

/* forget_events() */
PyObject *listeners_after_fork(PyObject *module, PyObject *unused);

/* set_signal_check(check) */
PyObject *listener_set_signal_check(PyObject *module, PyObject *check);

int listener_add_causes(PyObject *module);

#endif
