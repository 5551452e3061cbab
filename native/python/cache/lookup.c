/* Lookup; see lookup.h.
 *
 * A hot value is returned as it is, but for its arrays (hot_answer). A small value is copied out of its slab
 * and decoded. A value with a range of its own is pinned, and decoded over the range. In the child of a fork,
 * either may be with the parent: then it is copied from there. If the lookup finds a value lost, it removes
 * the entry, and the key is absent. For natively coded values and arrays the whole path runs no Python
 * code. It does for values of Python's codec, and for a value that can't be decoded any more. */
#include "python/cache/lookup.h"

#include "os/os.h"
#include "counters/stats.h"
#include "python/cache/codec.h"
#include "python/cache/evict.h"
#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"
#include "python/cache/pace.h"
#include "python/cache/read_away.h"
#include "python/lease.h"

enum { FRESH,
       STALE,
       OVER };

static int age_of(const cache_core *self, entry_no number) {
    if (!entry_at(&self->index, number)->expires) return FRESH;
    const uint64_t deadline_ns = *deadline_at(&self->index, number), now_ns = os_now_ns();
    if (deadline_ns <= now_ns) return OVER;
    return deadline_ns - now_ns <= self->stale_ns ? STALE : FRESH;
}

bool entry_is_expired(const cache_core *self, entry_no number) { return age_of(self, number) != FRESH; }

int outcome_of_absence(const cache_core *self, key_hash hash) {
    return ghosts_was_purged(&self->ghosts, hash) ? VRANGE_REQUEST_PURGED : VRANGE_REQUEST_MISS;
}

/* A function of its own, so that its buffer is on the stack only while it runs: a computation may recurse. */
__attribute__((noinline)) static PyObject *read_small(cache_core *self, uint64_t place, PyObject *form,
                                                      bool *is_lost) {
    char buffer[SMALL_BYTES_MOST];
    const Py_ssize_t bytes = slabs_read(&self->slabs, place, buffer);
    *is_lost = bytes < 0;
    return bytes < 0 ? NULL : decode_small(form, buffer, (size_t)bytes);
}

static PyObject *read_range(const entry *e, PyObject *form, bool *is_lost) {
    const bool is_text = e->is_text;
    const Py_ssize_t bytes = (Py_ssize_t)vrange_bytes(e->place) - e->tail;
    if (vrange_is_away(e->place)) return read_away(e->place, bytes, form, is_text, is_lost);
    PyObject *lease = lease_of_whole(e->place, bytes);
    *is_lost = !lease && !PyErr_Occurred();
    PyObject *value = lease ? decode_range(form, is_text, lease) : NULL;
    Py_XDECREF(lease);
    return value;
}

static PyObject *read_value(cache_core *self, entry_no number, bool *is_lost) {
    const entry *e = entry_at(&self->index, number);
    PyObject *form = Py_XNewRef(e->form), *value = NULL;
    *is_lost = e->place == PLACE_NOWHERE;
    if (e->place & PLACE_SLOT) value = read_small(self, e->place, form, is_lost);
    else if (!*is_lost) value = read_range(e, form, is_lost);
    Py_XDECREF(form);
    return value;
}

/* If memory runs out while a value is decoded, drops the hot values and decodes once more. May run Python. */
static PyObject *read_once_more(cache_core *self, entry_no number, bool *is_lost) {
    const uint32_t stamp = entry_at(&self->index, number)->stamp;
    PyObject *value = read_value(self, number, is_lost);
    if (value || !PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_MemoryError)) return value;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    hot_clear(self);
    if (!entry_is_still(&self->index, number, stamp)) {
        PyErr_Restore(type, error, traceback);
        return NULL;
    }
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return read_value(self, number, is_lost);
}

/* True: the error came from a signal handler, not from the value. */
static bool can_be_read(cache_core *self, entry_no number, uint32_t stamp) {
    bool is_lost;
    if (!entry_is_still(&self->index, number, stamp)) return true;
    PyObject *value = read_value(self, number, &is_lost);
    const bool is_read = value || (!PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_Exception));
    Py_XDECREF(value);
    PyErr_Clear();
    return is_read;
}

static int forget_and_warn(cache_core *self, PyObject *key, entry_no number, PyObject *error) {
    evict_entry(self, number, LEFT_REFUSED);
    limbo_drain(self);
    PyObject *done = PyObject_CallFunctionObjArgs(self->give_up, key, error, NULL);
    Py_XDECREF(done);
    return done ? listener_tell(self) : -1;
}

/* A value that can't be decoded would fail at every request, so its entry is removed. So is the entry of a
 * value for which memory was short twice: computing it again may need less. 0: look again; -1 with an error
 * set. */
static int give_up(cache_core *self, PyObject *key, entry_no number, uint32_t stamp) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        if (entry_is_still(&self->index, number, stamp)) {
            pace_remember(self, entry_at(&self->index, number)->hash, 0, false);
            evict_entry(self, number, LEFT_EVICTED);
        }
        limbo_drain(self);
        return listener_tell(self);
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (can_be_read(self, number, stamp)) {
        PyErr_Restore(type, error, traceback);
        return -1;
    }
    const bool is_same = entry_is_still(&self->index, number, stamp);
    const int result = is_same ? forget_and_warn(self, key, number, error) : 0;
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return result;
}

/* LOOKUP_FOUND, LOOKUP_FAILED, or LOOKUP_ABSENT, which means: look again. */
static int read_entry(cache_core *self, PyObject *key, entry_no number, looked_up *out) {
    const uint32_t stamp = entry_at(&self->index, number)->stamp;
    const bool is_copy = core_is_away(self, entry_at(&self->index, number));
    bool is_lost;
    PyObject *value = read_once_more(self, number, &is_lost);
    const bool is_same = entry_is_still(&self->index, number, stamp);
    if (!value) {
        if (PyErr_Occurred()) return give_up(self, key, number, stamp) < 0 ? LOOKUP_FAILED : LOOKUP_ABSENT;
        if (is_lost && is_same) evict_lost_place(self, number);
        limbo_drain(self);
        return listener_tell(self) < 0 ? LOOKUP_FAILED : LOOKUP_ABSENT;
    }
    if (!is_same) { /* code that decoding ran replaced it */
        Py_DECREF(value);
        return LOOKUP_ABSENT;
    }
    out->value = value;
    if (out->is_quiet) return LOOKUP_FOUND;
    entry *e = entry_at(&self->index, number);
    if (e->credit < CREDIT_MOST) e->credit++;
    pace_note(self, e, 1);
    if (is_copy) vrange_used(core_range_of(self, e), 1); /* a pin would have counted it */
    stats_request_with_gil(self->account, out->has_waited ? VRANGE_REQUEST_WAITED
                                          : is_copy       ? VRANGE_REQUEST_PEER
                                                          : VRANGE_REQUEST_RESIDENT);
    if (hot_offer(self, number, stamp, value, is_copy) < 0 || listener_tell(self) < 0) {
        Py_CLEAR(out->value);
        return LOOKUP_FAILED;
    }
    return LOOKUP_FOUND;
}

int core_look_up(cache_core *self, PyObject *key, key_hash hash, looked_up *out) {
    for (;;) {
        if (!core_is_open(self)) return LOOKUP_FAILED;
        const entry_no number = index_find(&self->index, key, hash);
        if (number == FIND_FAILED) return LOOKUP_FAILED;
        if (!number) {
            if (self->closed) continue; /* code that comparing ran closed it */
            out->outcome = outcome_of_absence(self, hash);
            out->version = self->index.version;
            return LOOKUP_ABSENT;
        }
        entry *e = entry_at(&self->index, number);
        if (e->place == PLACE_FLIGHT) {
            out->number = number;
            out->outcome = outcome_of_absence(self, hash);
            out->version = self->index.version - 1;
            return LOOKUP_UNDER_WAY;
        }
        if (self->is_heir && !e->value) {
            evict_left_behind(self);
            limbo_drain(self);
            continue;
        }
        const int age = age_of(self, number);
        if (age == STALE && out->stale == STALE_IS_ABSENT) {
            out->outcome = outcome_of_absence(self, hash);
            return LOOKUP_ABSENT;
        }
        if (age == OVER || (age == STALE && out->stale == STALE_IS_OVER)) {
            evict_entry(self, number, LEFT_EXPIRED);
            limbo_drain(self);
            if (listener_tell(self) < 0) return LOOKUP_FAILED;
            continue;
        }
        out->stamp = age == STALE ? e->stamp : 0;
        if (e->value) {
            out->value = hot_answer(e);
            if (!out->value) return LOOKUP_FAILED;
            if (!out->is_quiet) hot_count(self, e);
            return LOOKUP_FOUND;
        }
        const int found = read_entry(self, key, number, out);
        if (found != LOOKUP_ABSENT) return found;
    }
}
