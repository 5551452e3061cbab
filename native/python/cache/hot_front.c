/* The hot front: values that a cache holds strongly, so that a hit on them costs what a dict costs.
 *
 * The kernel can't take a value that is held strongly, so too many of them would get the process killed.
 * Each front is therefore bounded in bytes, and all fronts with the default bound are bounded together. The
 * value held longest is dropped first. While the front is full, each value that enters displaces another
 * one. So a value must have been used more than the one held longest, and only one hit in four compares
 * them. Each step leaves the front whole before it drops a reference. */
#include "python/cache/hot_front.h"

#include <stdatomic.h>
#include <stddef.h>

#include "counters/stats.h"
#include "os/os.h"
#include "pressure/headroom_in_signal.h"
#include "python/cache/limbo.h"
#include "python/cache/ndarray.h"
#include "python/cache/pace.h"

#define HITS_PER_CONTEST 4
#define HOT_HITS_PER_USE 16
#define WORTHWHILE 1.25f      /* times the uses: an exchange costs as much as twenty hits save */
#define HEAVIER_DECODED 16    /* a pickled int of 2 bytes becomes an object of 28 bytes and a pointer */
#define SPARE_SHARE 4         /* automatic fronts use at most this part of the memory free without them */
#define LOOK_NS 100000000ull
#define COPIES_SHARE 16 /* of the cache's bytes: with sixteen children, as much again */
#define COPIES_LEAST ((Py_ssize_t)1 << 20)

static struct {
    double share;          /* the part of its bound that each front may use now */
    Py_ssize_t automatic;  /* the common bound, in bytes, of all fronts with the default bound */
    Py_ssize_t affordable; /* the same, from the memory that was free at looked_ns */
    Py_ssize_t held;       /* the bytes that these fronts hold */
    uint64_t looked_ns;
} fronts = {.share = 1.0, .automatic = PY_SSIZE_T_MAX, .affordable = PY_SSIZE_T_MAX};

/* The part of a hot value's weight that lies outside its range. A view pins its range, whose bytes count as
 * pinned. A decoded object has its bytes on the interpreter's heap, and its range is volatile. */
static Py_ssize_t object_bytes_of(const entry *e) {
    const bool has_range = e->place && !(e->place & (PLACE_SLOT | PLACE_FLIGHT)) && !e->is_copy;
    if (!has_range || !(e->refers || (e->form && is_viewer(e->form)))) return e->weight;
    const Py_ssize_t pinned = (Py_ssize_t)vrange_bytes(e->place);
    return e->weight > pinned ? e->weight - pinned : 0;
}

static void add_bytes(cache_core *self, Py_ssize_t bytes, Py_ssize_t object_bytes) {
    self->hot_bytes += bytes;
    self->object_bytes += object_bytes;
    /* The size of an object's range may have changed since the object became hot. */
    if (!self->oldest || self->object_bytes < 0) self->object_bytes = 0;
    if (self->hot_is_automatic) fronts.held += bytes;
    /* Whole words, as vrange's own thread copies them meanwhile. */
    _Atomic uint64_t *words = (_Atomic uint64_t *)vrange_account_hot(self->account);
    atomic_store_explicit(&words[0], (uint64_t)self->hot_bytes, memory_order_relaxed);
    atomic_store_explicit(&words[1], (uint64_t)self->object_bytes, memory_order_relaxed);
}

/* ---- the order: the longest held first ------------------------------------------------------- */

static void append(cache_core *self, entry_no number) {
    entry *e = entry_at(&self->index, number);
    e->older = self->newest;
    e->newer = 0;
    if (self->newest) entry_at(&self->index, self->newest)->newer = number;
    else self->oldest = number;
    self->newest = number;
}

static void take_out(cache_core *self, entry_no number) {
    entry *e = entry_at(&self->index, number);
    if (e->older) entry_at(&self->index, e->older)->newer = e->newer;
    else self->oldest = e->newer;
    if (e->newer) entry_at(&self->index, e->newer)->older = e->older;
    else self->newest = e->older;
    e->older = e->newer = 0;
}

PyObject *hot_release(cache_core *self, entry_no number) {
    entry *e = entry_at(&self->index, number);
    PyObject *value = e->value;
    if (!value) return NULL;
    e->value = NULL;
    take_out(self, number);
    add_bytes(self, -(Py_ssize_t)e->weight, -object_bytes_of(e));
    if (e->is_copy) self->copied_bytes -= e->weight;
    e->is_copy = 0;
    return value;
}

/* If the value's range was lost, its key leaves with it. */
void hot_let_go(cache_core *self, entry_no number) {
    PyObject *value = hot_release(self, number);
    if (value && entry_at(&self->index, number)->place == PLACE_NOWHERE)
        limbo_lose(self, number, 0, LOST_PURGED);
    Py_XDECREF(value);
    limbo_drain(self);
}

static void let_oldest_go(cache_core *self) { hot_let_go(self, self->oldest); }

void hot_clear(cache_core *self) {
    /* A bounded number of turns: a finalizer that runs here may put values back into the front. */
    for (uint32_t turns = self->index.entries; turns > 0 && self->oldest; turns--) let_oldest_go(self);
}

void hot_forget(cache_core *self) {
    self->oldest = self->newest = 0;
    self->copied_bytes = 0;
    add_bytes(self, -self->hot_bytes, -self->object_bytes);
}

/* ---- answering ------------------------------------------------------------------------------- */

/* Arrays can't be written to, but a caller may give one another shape or dtype in place. So no two callers
 * get one array object, be it the value or an item of a tuple. */
static bool has_arrays(PyObject *value) {
    if (is_array(value)) return true;
    if (!PyTuple_CheckExact(value) || PyTuple_Size(value) > HOT_ARRAYS_MOST) return false;
    for (Py_ssize_t i = 0; i < PyTuple_Size(value); i++) {
        if (is_array(PyTuple_GetItem(value, i))) return true;
    }
    return false;
}

/* If an array is several items, its view is these items. */
static PyObject *view_of_item(PyObject *tuple, Py_ssize_t at, PyObject *views) {
    PyObject *item = PyTuple_GetItem(tuple, at);
    if (!is_array(item)) return Py_NewRef(item);
    for (Py_ssize_t i = 0; i < at; i++) {
        if (PyTuple_GetItem(tuple, i) == item) return Py_NewRef(PyTuple_GetItem(views, i));
    }
    return view_of_array(item);
}

static PyObject *with_own_arrays(PyObject *value) {
    if (is_array(value)) return view_of_array(value);
    PyObject *views = PyTuple_New(PyTuple_Size(value));
    for (Py_ssize_t i = 0; views && i < PyTuple_Size(value); i++) {
        PyObject *item = view_of_item(value, i, views);
        if (!item) Py_CLEAR(views);
        else PyTuple_SetItem(views, i, item);
    }
    return views;
}

/* An array that only the cache refers to, and that is as it was made, is nobody's. */
PyObject *hot_answer(const entry *e) {
    if (!has_arrays(e->value)) return Py_NewRef(e->value);
    if (!e->form || !is_viewer(e->form)) return with_own_arrays(e->value);
    const bool is_free = Py_REFCNT(e->value) == 1 && is_as_made(e->value, e->form);
    return is_free ? Py_NewRef(e->value) : view_again(e->form, e->value);
}

/* What the front holds of a value that a caller is about to get. */
static PyObject *to_hold(const entry *e, PyObject *value) {
    const bool is_remade = e->form && is_viewer(e->form);
    return has_arrays(value) && !is_remade ? with_own_arrays(value) : Py_NewRef(value);
}

/* ---- counting -------------------------------------------------------------------------------- */

/* A hit on a hot value does not touch its range. The range would seem unused, and would be evicted first
 * once the value is no longer hot. So a sample of the hot hits counts for all of them. The sample is random:
 * with every 16th hit, keys that are requested in turn could miss it each time. */
void hot_count(cache_core *self, entry *e) {
    stats_request_with_gil(self->account, VRANGE_REQUEST_HOT);
    self->draw = self->draw * 1664525u + 1013904223u; /* Numerical Recipes' */
    if (self->draw >> 16 & (HOT_HITS_PER_USE - 1)) return;
    if (e->credit < CREDIT_MOST) e->credit++;
    pace_note(self, e, HOT_HITS_PER_USE);
    if (e->place & PLACE_SLOT) vrange_used(slab_of(&self->slabs, e->place)->handle, HOT_HITS_PER_USE);
    else if (e->place) vrange_used(e->place, HOT_HITS_PER_USE);
}

/* ---- admitting ------------------------------------------------------------------------------- */

static Py_ssize_t weight_of_slot(const entry *e, PyObject *value) {
    if (PyBytes_CheckExact(value)) return OBJECT_BYTES + PyBytes_Size(value);
    if (PyUnicode_CheckExact(value)) return OBJECT_BYTES + PyUnicode_GetLength(value);
    if (!e->form) return OBJECT_BYTES * (1 + (PyTuple_CheckExact(value) ? PyTuple_Size(value) : 0));
    if (is_viewer(e->form)) return 2 * OBJECT_BYTES + SMALL_BYTES_MOST;
    return OBJECT_BYTES * HEAVIER_DECODED;
}

/* Python weighs a value that its codec decoded, once. May run Python. -1 with an error set. */
static Py_ssize_t weight_of_range(cache_core *self, const entry *e, PyObject *value) {
    const Py_ssize_t bytes = (Py_ssize_t)vrange_bytes(e->place);
    if (!e->form || is_viewer(e->form)) return bytes + 2 * OBJECT_BYTES;
    const Py_ssize_t range_bytes = e->refers ? bytes : 0;
    PyObject *weight = PyObject_CallFunction(self->weigh, "OOn", value, e->form, self->hot_limit);
    const Py_ssize_t itself = weight ? PyLong_AsSsize_t(weight) : -1;
    Py_XDECREF(weight);
    return itself > 0 ? itself + range_bytes : itself;
}

/* Whether the value is used enough more than the one held longest to be worth an exchange. If not, the one
 * held longest counts as just added. */
static bool wins(cache_core *self, const entry *e) {
    const entry_no number = self->oldest;
    if (!number) return true;
    const entry *oldest = entry_at(&self->index, number);
    /* The uses of a value in a slab are not known. */
    if (!oldest->place || (oldest->place | e->place) & PLACE_SLOT) return true;
    if (vrange_uses(e->place) >= WORTHWHILE * (float)vrange_uses(oldest->place)) return true;
    take_out(self, number);
    append(self, number);
    return false;
}

/* ---- all automatic fronts together ----------------------------------------------------------- */

static cache_core *largest_automatic(void) {
    cache_core *largest = NULL;
    for (cache_core *core = cores_first(); core; core = core->following) {
        if (core->hot_is_automatic && core->oldest && (!largest || core->hot_bytes > largest->hot_bytes))
            largest = core;
    }
    return largest;
}

/* A process may grow for other reasons, and its hot values must not be the reason for a kill then. Reading
 * the limits takes microseconds, so the figure may be a tenth of a second old. */
static Py_ssize_t most_together(void) {
    const uint64_t now = os_now_ns();
    if (now - fronts.looked_ns >= LOOK_NS) {
        const int64_t enough =
            fronts.automatic < INT64_MAX / SPARE_SHARE ? fronts.automatic * SPARE_SHARE : INT64_MAX;
        const int64_t spare = headroom_in_signal(enough);
        const int64_t share = spare > INT64_MAX - fronts.held ? INT64_MAX : (spare + fronts.held) / SPARE_SHARE;
        fronts.affordable = share < 0 ? 0 : (Py_ssize_t)share;
        fronts.looked_ns = now;
    }
    return fronts.automatic < fronts.affordable ? fronts.automatic : fronts.affordable;
}

static bool fits_together(Py_ssize_t weight) {
    const Py_ssize_t most = most_together();
    return weight <= most && fronts.held <= most - weight;
}

/* Drops values of the largest automatic front until `weight` more bytes fit within the common bound. False:
 * `weight` exceeds that bound, or no front has values left. May run Python. */
static bool make_room_among_all(Py_ssize_t weight) {
    while (!fits_together(weight)) {
        cache_core *largest = weight <= most_together() ? largest_automatic() : NULL;
        if (!largest) return false;
        Py_INCREF((PyObject *)largest);
        let_oldest_go(largest);
        Py_DECREF((PyObject *)largest);
    }
    return true;
}

void hot_give_way(void) {
    if (os_now_ns() - fronts.looked_ns >= LOOK_NS) make_room_among_all(0);
}

/* A copy in the front is in memory twice, and in as many processes as read it often. So only what is read
 * often is held, and all copies together are a small part of what was cached. */
static bool may_hold_copy(const cache_core *self, Py_ssize_t weight) {
    const Py_ssize_t share = self->bytes / COPIES_SHARE, most = share > COPIES_LEAST ? share : COPIES_LEAST;
    return self->copied_bytes + weight <= most;
}

int hot_offer(cache_core *self, entry_no number, uint32_t stamp, PyObject *value, bool is_copy) {
    if (self->hot_bound == 0) return 0;
    entry *e = entry_at(&self->index, number);
    if (e->weight == NEVER_HOT) return 0;
    if (is_copy && (e->credit < CREDIT_MOST || !may_hold_copy(self, e->weight))) return 0;
    const bool was_full = self->front_is_full;
    if (was_full && ++self->contests % HITS_PER_CONTEST) return 0;
    if (was_full && !wins(self, e)) return 0;
    if (self->hot_limit == 0) {
        self->front_is_full = true;
        return 0;
    }
    Py_ssize_t weight = e->weight;
    if (weight == 0) {
        weight = e->place & PLACE_SLOT ? weight_of_slot(e, value) : weight_of_range(self, e, value);
        if (weight <= 0) return weight < 0 ? -1 : 0;
        if (weight >= NEVER_HOT) weight = NEVER_HOT - 1;
        if (!entry_is_still(&self->index, number, stamp)) return 0;
        e = entry_at(&self->index, number);
        if (!e->value) e->weight = (uint32_t)weight;
    }
    if (is_copy && !may_hold_copy(self, weight)) return 0;
    const bool has_room = self->hot_bytes + weight <= self->hot_limit &&
                          (!self->hot_is_automatic || fits_together(weight));
    self->front_is_full = !has_room;
    if (!has_room && !was_full) return 0; /* from now on values are compared */
    if (weight > self->hot_limit) return 0;
    if (self->hot_is_automatic && weight > most_together()) return 0;
    while (self->oldest && self->hot_bytes + weight > self->hot_limit) let_oldest_go(self);
    if (self->hot_is_automatic && !make_room_among_all(weight)) return 0;
    if (!entry_is_still(&self->index, number, stamp)) return 0;
    e = entry_at(&self->index, number);
    if (e->value || e->place == PLACE_NOWHERE || self->hot_bytes + weight > self->hot_limit) return 0;
    if (is_copy && !may_hold_copy(self, weight)) return 0;
    PyObject *held = to_hold(e, value);
    if (!held) { /* the caller has its value */
        PyErr_Clear();
        return 0;
    }
    e->value = held;
    e->is_copy = is_copy;
    if (is_copy) self->copied_bytes += weight;
    entry_refers(&self->index, number, held);
    e->weight = (uint32_t)weight;
    append(self, number);
    add_bytes(self, weight, object_bytes_of(e));
    return 0;
}

/* ---- all fronts of the process --------------------------------------------------------------- */

static void set_bound(cache_core *self, Py_ssize_t bound) {
    if (self->hot_is_automatic) bound = fronts.automatic;
    self->hot_bound = bound;
    self->hot_limit = (Py_ssize_t)((double)bound * fronts.share);
}

void hot_join(cache_core *self, Py_ssize_t bound) {
    set_bound(self, bound);
}

static Py_ssize_t shrink(cache_core *self) {
    Py_ssize_t gone = 0;
    while (self->oldest && self->hot_bytes > self->hot_limit) {
        const Py_ssize_t before = self->hot_bytes;
        let_oldest_go(self);
        if (before > self->hot_bytes) gone += before - self->hot_bytes;
    }
    return gone;
}

PyObject *hot_use_share(PyObject *module, PyObject *share) {
    (void)module;
    const double wanted = PyFloat_AsDouble(share);
    if (wanted == -1.0 && PyErr_Occurred()) return NULL;
    fronts.share = wanted;
    for (cache_core *core = cores_first(); core; core = core->following) set_bound(core, core->hot_bound);
    Py_ssize_t gone = 0;
    cache_core *core = cores_first();
    Py_XINCREF((PyObject *)core);
    while (core) {
        gone += shrink(core);
        /* NULL if this one left the list meanwhile: the rest shrink next time. */
        cache_core *next = core->following;
        Py_XINCREF((PyObject *)next);
        Py_DECREF((PyObject *)core);
        core = next;
    }
    return PyLong_FromSsize_t(gone);
}

PyObject *hot_set_automatic(PyObject *module, PyObject *bytes) {
    (void)module;
    const Py_ssize_t wanted = PyLong_AsSsize_t(bytes);
    if (wanted == -1 && PyErr_Occurred()) return NULL;
    fronts.automatic = wanted;
    Py_RETURN_NONE;
}
