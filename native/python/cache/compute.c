/* Compute: a value that is absent is computed and stored, with no Python frame of ours.
 *
 * Usually no other caller computes the key, and that case is handled here. If another caller is computing it,
 * Python waits (_cache/waiting.py). A computation evicts everything else from the processor's caches, so
 * little code runs after it.
 *
 * A memoised recursion has these frames on the stack once per level, and must get as deep as with
 * functools.cache. So the flight holds everything that is needed after the computation, the frame of the call
 * holds one pointer, and the code that runs before and after the call is not inlined into it. */
#include "python/cache/compute.h"

#include "os/os.h"
#include "counters/stats.h"
#include "python/cache/codec.h"
#include "python/cache/listener.h"
#include "python/cache/lookup.h"
#include "python/cache/stopwatch.h"
#include "python/cache/store.h"

void count_regenerated(const flight *f, uint64_t took_ns) {
    if (!f->core) return;
    vrange_account_regenerated(f->core->account, took_ns);
    if (f->outcome == VRANGE_REQUEST_PURGED)
        vrange_latency_record(VRANGE_KIND_CACHE, VRANGE_REALLOCATE_PURGED, os_now_ns() - f->asked_ns);
}

/* Computes a value that will not be stored. */
static PyObject *compute_only(cache_core *self, PyObject *function, PyObject *args, PyObject *kwargs) {
    const uint64_t begun_ns = os_now_ns();
    PyObject *value = PyObject_Call(function, args, kwargs);
    if (value) vrange_account_regenerated(self->account, os_now_ns() - begun_ns);
    return value;
}

/* Returns the result of another caller's flight, or of computing instead of waiting. NotImplemented: look
 * again. */
static PyObject *wait_for(cache_core *self, const looked_up *found, PyObject *function, PyObject *args,
                          PyObject *kwargs) {
    PyObject *other = Py_NewRef(entry_at(&self->index, found->number)->form);
    PyObject *value = PyObject_CallFunctionObjArgs(self->wait, other, NULL);
    const bool never_came = value == other;
    Py_DECREF(other);
    if (value == Py_NotImplemented) return value;
    stats_request_with_gil(self->account, never_came ? found->outcome : VRANGE_REQUEST_WAITED);
    if (!never_came) return value;
    Py_DECREF(value);
    return core_answer_unstored(self, compute_only(self, function, args, kwargs));
}

typedef struct {
    flight *leads;   /* a reference; NULL: the answer is there */
    PyObject *value; /* the answer; NULL with an error set */
} beginning;

/* Looks the key up, unless the index is the one that did not have it. May run Python. */
static int look_up_again(cache_core *self, PyObject *key, missed_key missed, looked_up *found) {
    if (missed.version != self->index.version || self->closed)
        return core_look_up(self, key, missed.hash, found);
    found->version = missed.version;
    found->outcome = outcome_of_absence(self, missed.hash);
    return LOOKUP_ABSENT;
}

static beginning begin(cache_core *self, PyObject *key, missed_key missed, PyObject *function, PyObject *args,
                       PyObject *kwargs) {
    bool has_waited = false;
    for (;;) {
        /* A value that became stale just now is taken: the next hit has it computed again. */
        looked_up found = {.stale = STALE_IS_TAKEN, .has_waited = has_waited};
        switch (look_up_again(self, key, missed, &found)) {
        case LOOKUP_FAILED: return (beginning){NULL, NULL};
        case LOOKUP_FOUND: return (beginning){NULL, found.value};
        case LOOKUP_UNDER_WAY: {
            PyObject *value = wait_for(self, &found, function, args, kwargs);
            if (value != Py_NotImplemented) return (beginning){NULL, value};
            /* The flight landed without a value, or with one of which each caller gets its own. */
            Py_DECREF(value);
            has_waited = true;
            if (!self->closed) continue;
            value = compute_only(self, function, args, kwargs);
            return (beginning){NULL, core_answer_unstored(self, value)};
        }
        }
        if (core_keeps_nothing(self)) {
            stats_request_with_gil(self->account, found.outcome);
            return (beginning){NULL, compute_only(self, function, args, kwargs)};
        }
        flight *f = flight_begin(self, key, missed.hash, found.version, found.outcome, NULL);
        if (!f) return (beginning){NULL, NULL};
        if (f->number && flight_enter(f) == 0) return (beginning){f, NULL};
        const bool failed = f->number != 0;
        if (failed) flight_land(f, NULL);
        Py_DECREF((PyObject *)f);
        if (failed) return (beginning){NULL, NULL};
    }
}

/* Steals all references but those to the core and the function. */
__attribute__((noinline)) static beginning begin_with(cache_core *self, PyObject *key, missed_key missed,
                                                      PyObject *function, PyObject *args, PyObject *kwargs) {
    beginning b = begin(self, key, missed, function, args, kwargs);
    Py_DECREF(key);
    if (!b.leads) {
        Py_DECREF(args);
        Py_XDECREF(kwargs);
        return b;
    }
    b.leads->function = Py_NewRef(function);
    b.leads->args = args;
    b.leads->kwargs = kwargs;
    stats_request_with_gil(self->account, b.leads->outcome);
    b.leads->watch = stopwatch_start();
    return b;
}

/* Stores the computed value (NULL: the function raised), lands the flight, and returns the object for the
 * caller. NULL with an error set. */
__attribute__((noinline)) static PyObject *finish(flight *f, PyObject *computed) {
    PyObject *value = NULL;
    if (computed) {
        const time_taken took = stopwatch_read(&f->watch);
        value = store_computed(f, computed, took.cost_ns);
        Py_DECREF(computed);
        if (value) count_regenerated(f, took.passed_ns);
    }
    flight_leave(f);
    cache_core *self = f->core && f->core->untold_count ? (cache_core *)Py_NewRef((PyObject *)f->core) : NULL;
    if (flight_land(f, value) < 0) Py_CLEAR(value);
    if (self) value = listener_pass(self, value); /* now, as a listener may wait for a waiter */
    Py_XDECREF((PyObject *)self);
    /* Contexts of tasks and threads may keep the flight alive; they need not keep the arguments alive. */
    Py_CLEAR(f->function);
    Py_CLEAR(f->args);
    Py_CLEAR(f->kwargs);
    Py_DECREF((PyObject *)f);
    return value;
}

PyObject *core_answer(cache_core *self, PyObject *key, missed_key missed, PyObject *function, PyObject *args,
                      PyObject *kwargs) {
    const beginning b = begin_with(self, key, missed, function, args, kwargs);
    if (!b.leads) return b.value;
    return finish(b.leads, PyObject_Call(b.leads->function, b.leads->args, b.leads->kwargs));
}
