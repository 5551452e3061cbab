/* Store: a value gets a place, and its key's entry refers to it.
 *
 * First the value is coded and written, which may take long and run Python code. Then, in one stretch, the
 * entry is found or added, it refers to the new place, and its old place is freed. If there is no room for a
 * value, it is refused: the key is purged at once. */
#include "python/cache/store.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "os/os.h"
#include "python/cache/clear.h"
#include "python/cache/codec.h"
#include "python/cache/evict.h"
#include "python/cache/first_answer.h"
#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"
#include "python/lease.h"
#include "ranges/worth.h"

#define OTHERS_BYTES (32u << 20) /* what other threads may allocate while a large value is copied */

enum { FAILED = -1, DONE, REFUSED };

/* Where to store: in a flight's entry, or under a key. */
typedef struct {
    flight *of; /* NULL: under the key */
    PyObject *key;
    key_hash hash;
    uint64_t expires_ns, cost_ns;
    entry_no stored_in; /* set by install */
    uint32_t stamp;
    bool called_off, is_private;
    bool has_caller; /* a caller gets the answer */
    PyObject *lease; /* set by store_range: pins the range, so that others go for it */
} request;

static int raise_closed(cache_core *self) { return core_is_open(self) ? DONE : FAILED; }

/* ---- the last stretch ------------------------------------------------------------------------ */

static entry_no with_deadline(cache_core *self, const request *r, entry_no number) {
    const bool lacks = number && r->expires_ns && !index_takes_deadline(&self->index, number);
    return lacks ? 0 : number;
}

/* Returns the entry; 0: no memory, or the flight was called off; FIND_FAILED with an error set. May run
 * Python, but not after it found or added the entry. */
static entry_no target(cache_core *self, request *r) {
    if (r->of) {
        r->called_off = r->of->number == 0;
        return with_deadline(self, r, r->of->number);
    }
    entry_no number = index_find(&self->index, r->key, r->hash);
    if (number == FIND_FAILED) return number;
    if (!number && !self->closed) number = index_add(&self->index, r->key, r->hash);
    return with_deadline(self, r, number);
}

/* Its value has no place yet. */
static void forget_if_new(cache_core *self, const request *r, entry_no number) {
    const entry *e = entry_at(&self->index, number);
    if (!r->of && !e->place && !e->value) index_bury(&self->index, number);
}

static uint8_t first_credit(const cache_core *self, const request *r) {
    const uint32_t uses = core_remembered_uses(self, r->hash) / 16;
    return (uint8_t)(uses < CREDIT_MOST ? uses : CREDIT_MOST);
}

static uint8_t cost_step(uint64_t cost_ns) {
    const uint64_t ns = cost_ns ? cost_ns : UNKNOWN_COST_NS;
    const int octave = 63 - __builtin_clzll(ns);
    return (uint8_t)(octave < 2 ? octave : octave * 4 + (int)(ns >> (octave - 2) & 3));
}

/* Makes the entry refer to the place. The caller drops the references in `before`. */
static void install(cache_core *self, request *r, entry_no number, uint64_t place, const coded *c,
                    PyObject *before[2]) {
    entry *e = entry_at(&self->index, number);
    const uint64_t place_before = e->place;
    if (place_before == PLACE_FLIGHT) flight_detach((flight *)e->form);
    before[0] = hot_release(self, number);
    before[1] = e->form;
    e->credit = first_credit(self, r);
    e->cost = cost_step(r->cost_ns);
    e->form = Py_XNewRef(c->form);
    e->refers = c->refers;
    e->is_text = c->is_text;
    e->tail = c->is_small ? 0 : (uint16_t)(vrange_bytes(place) - c->bytes);
    e->place = place;
    e->weight = c->is_private ? NEVER_HOT : 0;
    e->stamp = ++self->index.stamps;
    e->expires = r->expires_ns != 0;
    if (e->expires) *deadline_at(&self->index, number) = r->expires_ns;
    expiry_note(&self->deadlines, &self->index, number);
    ghosts_forget(&self->ghosts, r->hash);
    limbo_free_place(self, place_before);
    r->is_private = c->is_private;
    r->stored_in = number;
    r->stamp = e->stamp;
}

static void replace(PyObject **answer, PyObject *by) {
    PyObject *before = *answer;
    *answer = by;
    Py_DECREF(before);
}

static void drop(PyObject *before[2]) {
    Py_XDECREF(before[0]);
    Py_XDECREF(before[1]);
}

static Py_ssize_t pages_bytes(size_t bytes) {
    const size_t page = os_page_bytes();
    return (Py_ssize_t)((bytes + page - 1) / page * page);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* Reserves the address space with the first value. */
static int open_arena(cache_core *self) {
    if (self->arena) return DONE;
    PyObject *done = PyObject_CallFunctionObjArgs(self->open_arena, (PyObject *)self, NULL); /* use_arena */
    Py_XDECREF(done);
    if (!done) return FAILED;
    return self->arena ? DONE : raise_closed(self) == FAILED ? FAILED : REFUSED;
}

/* A fresh slab for values as large as this one. */
static int add_slab(cache_core *self, const coded *c) {
    if (self->bytes_most < (Py_ssize_t)SLAB_BYTES) return REFUSED;
    uint64_t handle;
    while (vrange_allocate(self->arena, SLAB_BYTES, &handle) < 0) {
        if (!evict_make_room(self, SLAB_BYTES)) return REFUSED;
        if (!self->arena) return raise_closed(self);
    }
    if (self->last_cost_ns) vrange_set_cost(handle, self->last_cost_ns);
    slab *added = slabs_add(&self->slabs, handle, c->bytes);
    vrange_release(handle);
    if (!added) {
        vrange_free(handle);
        return REFUSED;
    }
    self->bytes += SLAB_BYTES;
    return DONE;
}

/* `answer` stays NULL if there is no caller to answer, or if the caller gets its own value. */
static int answer_first(cache_core *self, const request *r, const coded *c, PyObject *lease,
                        PyObject **answer) {
    *answer = NULL;
    if (!r->has_caller || !c->is_view) return DONE;
    switch (first_answer(self, c, lease, answer)) {
    case FIRST_DECODED: return DONE;
    case FIRST_IS_UNREADABLE: return REFUSED;
    default: return FAILED;
    }
}

/* ---- a small value --------------------------------------------------------------------------- */

static int store_small(cache_core *self, request *r, const coded *c) {
    for (;;) {
        if (!self->arena) return raise_closed(self);
        if (!slabs_with_room(&self->slabs, c->bytes)) {
            const int added = add_slab(self, c);
            if (added != DONE) return added;
            continue;
        }
        const entry_no number = target(self, r);
        if (number == FIND_FAILED) return FAILED;
        if (!number) return self->closed ? raise_closed(self) : REFUSED;
        slab *to = slabs_with_room(&self->slabs, c->bytes); /* again, as finding may have run Python */
        uint64_t place;
        if (!to || !slabs_write(&self->slabs, to, c->small, c->bytes, number, &place)) {
            forget_if_new(self, r, number);
            if (to) evict_lost_slab(self, to);
            continue;
        }
        PyObject *before[2];
        install(self, r, number, place, c, before);
        drop(before);
        return DONE;
    }
}

/* ---- a value with a range of its own --------------------------------------------------------- */

/* A range with the parts in it, or for `write` to fill. */
static int take_range(vrange_arena *arena, const request *r, const coded *c, uint32_t uses, uint64_t *handle) {
    if (!c->write) return vrange_store(arena, c->parts, c->part_count, r->cost_ns, uses, handle);
    const int result = vrange_allocate(arena, c->bytes, handle);
    if (result != VRANGE_OK) return result;
    if (r->cost_ns) vrange_set_cost(*handle, r->cost_ns);
    vrange_used(*handle, uses / USE);
    return result;
}

static int take_range_without_gil(vrange_arena *arena, const request *r, const coded *c, uint32_t uses,
                                  uint64_t *handle) {
    int result;
    if (c->bytes < LET_OTHERS_RUN_BYTES) return take_range(arena, r, c, uses, handle);
    Py_BEGIN_ALLOW_THREADS
    result = take_range(arena, r, c, uses, handle);
    if (result == -ENOBUFS && vrange_room_take(OTHERS_BYTES) == VRANGE_OK) {
        /* Memory that seemed free was not, or is in use by now. Try once more, with more room. */
        result = take_range(arena, r, c, uses, handle);
        vrange_room_give(OTHERS_BYTES);
    }
    Py_END_ALLOW_THREADS
    return result;
}

/* Lets Python write into the range, which stays pinned. May run Python. */
static int write_by_python(const coded *c, uint64_t handle) {
    if (vrange_pin_whole(handle) != VRANGE_OK) return REFUSED; /* the cache was closed meanwhile */
    PyObject *lease = lease_of_pinned(handle, (Py_ssize_t)c->bytes, 1);
    PyObject *written = lease ? PyObject_CallFunctionObjArgs(c->write, lease, NULL) : NULL;
    Py_XDECREF(lease);
    Py_XDECREF(written);
    return written ? DONE : FAILED;
}

static int write_range(cache_core *self, const request *r, const coded *c, uint64_t *handle) {
    const uint32_t uses = core_remembered_uses(self, r->hash);
    /* Evict nothing for a value that finds no place all the same. */
    if (!self->arena) return raise_closed(self);
    if (pages_bytes(c->bytes) > self->bytes_most || !vrange_arena_can_hold(self->arena, c->bytes))
        return REFUSED;
    for (;;) {
        vrange_arena *arena = self->arena;
        if (!arena) return raise_closed(self);
        const int result = take_range_without_gil(arena, r, c, uses, handle);
        if (result == VRANGE_OK) break;
        if (!self->arena) return raise_closed(self);
        if (result == -ENOBUFS || !evict_make_room(self, c->bytes)) return REFUSED;
    }
    const int written = c->write ? write_by_python(c, *handle) : DONE;
    if (written == DONE) return DONE;
    vrange_free(*handle);
    vrange_release(*handle);
    return written;
}

static int store_range(cache_core *self, request *r, const coded *c, PyObject **answer) {
    uint64_t handle;
    const int written = write_range(self, r, c, &handle);
    if (written != DONE) return written;
    const Py_ssize_t bytes = (Py_ssize_t)vrange_bytes(handle);
    PyObject *lease = lease_of_pinned(handle, (Py_ssize_t)c->bytes, 0), *first = NULL;
    const int answered = lease ? answer_first(self, r, c, lease, &first) : FAILED;
    const entry_no number = answered == DONE ? target(self, r) : FIND_FAILED;
    if (number == FIND_FAILED || !number || !self->arena) {
        vrange_free(handle);
        Py_XDECREF(lease);
        Py_XDECREF(first);
        if (answered != DONE) return answered;
        if (number == FIND_FAILED) return FAILED;
        return self->arena ? REFUSED : raise_closed(self);
    }
    vrange_set_owner(handle, number);
    self->bytes += bytes;
    PyObject *before[2];
    install(self, r, number, handle, c, before);
    drop(before);
    r->lease = lease;
    if (first) replace(answer, first);
    return DONE;
}

/* ---- both ------------------------------------------------------------------------------------ */

static int code(cache_core *self, PyObject *value, coded *c) {
    switch (code_value(self, value, c)) {
    case CODED: return DONE;
    case NOT_KEPT: return REFUSED;
    default: return FAILED;
    }
}

/* Sets the answer to the object that later callers get as well. For an ndarray that is a view of the stored
 * bytes, so that the memory is not held twice. It stays the value itself where no caller can tell the
 * difference. */
static int store(cache_core *self, request *r, PyObject **answer) {
    r->called_off = r->of && r->of->number == 0;
    if (r->called_off) return REFUSED; /* its result is not to be stored */
    coded c;
    int done = open_arena(self); /* first, because it reads the limits that coding a large value checks */
    memset(&c, 0, offsetof(coded, small));
    if (done == DONE) done = code(self, *answer, &c);
    if (done == DONE && r->cost_ns) self->last_cost_ns = r->cost_ns;
    if (done == DONE && !c.is_small) {
        done = store_range(self, r, &c, answer);
    } else if (done == DONE) {
        PyObject *first;
        done = answer_first(self, r, &c, NULL, &first);
        if (done == DONE) done = store_small(self, r, &c);
        if (first && done != FAILED) replace(answer, first);
        else Py_XDECREF(first);
    }
    coded_release(&c);
    if (done == FAILED && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear(); /* no memory to store it: the caller gets it all the same */
        done = REFUSED;
    }
    if (done == REFUSED && !r->called_off) vrange_account_refused(self->account);
    if (done == DONE) evict_to_bounds(self, r->stored_in, r->stamp);
    Py_XDECREF(r->lease);
    if (done == DONE) hot_give_way();
    limbo_drain(self);
    if (self->graves) clear_some(self, 8);
    return done;
}

static uint64_t expiry_of(const cache_core *self) {
    return self->ttl_ns ? os_now_ns() + self->ttl_ns : 0;
}

/* Leaves the key as if the kernel had taken its value at once. May run Python. */
static int be_purged(cache_core *self, PyObject *key, key_hash hash) {
    const entry_no number = index_find(&self->index, key, hash);
    if (number == FIND_FAILED) return FAILED;
    if (number) evict_entry(self, number);
    core_remember(self, hash, 0, true);
    limbo_drain(self);
    return DONE;
}

/* Removes the value that the failed store should have replaced. Keeps the error. May run Python. */
static void forget(cache_core *self, PyObject *key, key_hash hash) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    const entry_no number = index_find(&self->index, key, hash);
    if (number == FIND_FAILED) PyErr_Clear();
    else if (number) evict_entry(self, number);
    limbo_drain(self);
    PyErr_Restore(type, error, traceback);
}

int store_set(cache_core *self, PyObject *key, key_hash hash, PyObject *value, uint64_t expires_ns,
              uint64_t cost_ns) {
    if (!core_is_open(self)) return FAILED;
    if (core_keeps_nothing(self)) return DONE;
    request r = {.key = key,
                 .hash = hash,
                 .expires_ns = expires_ns ? expires_ns : expiry_of(self),
                 .cost_ns = cost_ns};
    PyObject *answer = Py_NewRef(value);
    int done = store(self, &r, &answer);
    Py_DECREF(answer);
    if (done == REFUSED) return be_purged(self, key, hash);
    if (done == FAILED) forget(self, key, hash);
    return done;
}

PyObject *store_computed(flight *of, PyObject *value, uint64_t cost_ns) {
    cache_core *self = of->core;
    if (!core_is_open(self)) return NULL;
    request r = {
        .of = of, .hash = of->hash, .expires_ns = expiry_of(self), .cost_ns = cost_ns, .has_caller = true};
    PyObject *answer = Py_NewRef(value);
    const int done = store(self, &r, &answer);
    of->is_private = done == DONE && r.is_private;
    if (done == FAILED) Py_CLEAR(answer);
    if (done == REFUSED) answer = core_answer_unstored(self, answer);
    return answer;
}
