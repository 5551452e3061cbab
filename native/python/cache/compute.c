/* Compute: a value that is nowhere is computed and stored, with no Python frame of ours.
 *
 * Usually nobody else computes the key, and nobody comes to wait: that is this path. The exit is a key that
 * another one computes just now: waiting for it is Python's. Computing pushes everything else out of the
 * processor's caches, so what runs after it has to be little. */
#include "python/cache/compute.h"

#include "os/os.h"
#include "counters/stats.h"
#include "python/cache/lookup.h"
#include "python/cache/stopwatch.h"
#include "python/cache/store.h"

void count_regenerated(const flight *f, uint64_t took_ns) {
    if (!f->core) return;
    vrange_account_regenerated(f->core->account, took_ns);
    if (f->outcome == VRANGE_REQUEST_PURGED)
        vrange_latency_record(VRANGE_KIND_CACHE, VRANGE_REALLOCATE_PURGED, os_now_ns() - f->asked_ns);
}

static PyObject *compute(flight *f, const call_parts *call) {
    stats_request_with_gil(f->core->account, f->outcome);
    stopwatch watch = stopwatch_start();
    PyObject *computed = PyObject_Call(call->function, call->args, call->kwargs);
    if (!computed) return NULL;
    const time_taken took = stopwatch_read(&watch);
    PyObject *kept = store_computed(f, computed, took.cost_ns);
    Py_DECREF(computed);
    if (kept) count_regenerated(f, took.passed_ns);
    return kept;
}

static PyObject *lead_flight(flight *f, const call_parts *call) {
    PyObject *value = NULL;
    if (flight_enter(f) == 0) {
        value = compute(f, call);
        flight_leave(f);
    }
    if (flight_land(f, value) < 0) Py_CLEAR(value);
    return value;
}

/* What came of another's flight, or of computing instead of waiting; NotImplemented: ask again. */
static PyObject *wait_for(cache_core *self, const looked_up *found, const call_parts *call) {
    PyObject *other = Py_NewRef(entry_at(&self->index, found->number)->form);
    stats_request_with_gil(self->account, found->outcome);
    PyObject *value = PyObject_CallFunctionObjArgs(self->wait, other, call->function, call->args,
                                                   call->kwargs ? call->kwargs : Py_None, NULL);
    Py_DECREF(other);
    return value;
}

PyObject *core_answer(cache_core *self, PyObject *key, key_hash hash, const call_parts *call) {
    for (;;) {
        looked_up found;
        switch (core_look_up(self, key, hash, &found)) {
        case LOOKUP_FAILED: return NULL;
        case LOOKUP_FOUND: return found.value;
        case LOOKUP_UNDER_WAY: {
            PyObject *value = wait_for(self, &found, call);
            if (value != Py_NotImplemented) return value;
            Py_DECREF(value); /* it landed without a value */
            continue;
        }
        }
        flight *f = flight_begin(self, key, hash, found.version, found.outcome, NULL);
        if (!f) return NULL;
        const bool began = f->number != 0;
        PyObject *value = began ? lead_flight(f, call) : NULL;
        Py_DECREF((PyObject *)f);
        if (began) return value;
    }
}
