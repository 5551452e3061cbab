/* Store; see store.h.
 *
 * First the value is coded and written (write_range.c), which may take long and run Python code. Then, in one
 * stretch, the entry is found or added, it refers to the new place, and its old place is freed (install.c). If
 * there is no room for a value, it is refused: the key is purged at once. */
#include "python/cache/store.h"

#include <stddef.h>
#include <string.h>

#include "os/os.h"
#include "python/cache/clear.h"
#include "python/cache/codec.h"
#include "python/cache/evict.h"
#include "python/cache/first_answer.h"
#include "python/cache/hot_front.h"
#include "python/cache/install.h"
#include "python/cache/limbo.h"
#include "python/cache/pace.h"
#include "python/cache/write_range.h"
#include "python/lease.h"

static void replace(PyObject **answer, PyObject *by) {
    PyObject *before = *answer;
    *answer = by;
    Py_DECREF(before);
}

static void drop(PyObject *before[2]) {
    Py_XDECREF(before[0]);
    Py_XDECREF(before[1]);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* Reserves the address space with the first value. */
static int open_arena(cache_core *self) {
    if (self->arena) return STORE_DONE;
    PyObject *done = PyObject_CallFunctionObjArgs(self->open_arena, (PyObject *)self, NULL); /* use_arena */
    Py_XDECREF(done);
    if (!done) return STORE_FAILED;
    if (self->arena) return STORE_DONE;
    return core_is_open(self) ? STORE_REFUSED : STORE_FAILED;
}

/* A fresh slab for values as large as this one. */
static int add_slab(cache_core *self, const coded *c) {
    if (self->bytes_most < (Py_ssize_t)SLAB_BYTES) return STORE_REFUSED;
    uint64_t handle;
    while (vrange_allocate(self->arena, SLAB_BYTES, &handle) < 0) {
        if (!evict_make_room(self, SLAB_BYTES)) return STORE_REFUSED;
        if (!self->arena) return core_raise_closed(self);
    }
    if (self->last_cost_ns) vrange_set_cost(handle, self->last_cost_ns);
    slab *added = slabs_add(&self->slabs, handle, c->bytes);
    vrange_release(handle);
    if (!added) {
        vrange_free(handle);
        return STORE_REFUSED;
    }
    self->bytes += SLAB_BYTES;
    return STORE_DONE;
}

/* `answer` stays NULL if there is no caller to answer, or if the caller gets its own value. */
static int answer_first(cache_core *self, store_request *r, const coded *c, PyObject *lease,
                        PyObject **answer) {
    *answer = NULL;
    if (!r->has_caller || !c->is_view) return STORE_DONE;
    switch (first_answer(self, c, lease, answer)) {
    case FIRST_DECODED: return STORE_DONE;
    case FIRST_IS_UNREADABLE: r->is_unfit = true; return STORE_REFUSED;
    default: return STORE_FAILED;
    }
}

/* ---- a small value --------------------------------------------------------------------------- */

static int store_small(cache_core *self, store_request *r, const coded *c) {
    for (bool has_added = false;;) {
        if (!self->arena) return core_raise_closed(self);
        if (!slabs_with_room(&self->slabs, c->bytes)) {
            /* The slab that was added has been lost before the value was written. On the eager rung without a
             * caretaker each one is. */
            if (has_added) return STORE_REFUSED;
            has_added = true;
            const int added = add_slab(self, c);
            if (added != STORE_DONE) return added;
            continue;
        }
        const entry_no number = install_target(self, r);
        if (number == FIND_FAILED) return STORE_FAILED;
        if (!number) return self->closed ? core_raise_closed(self) : STORE_REFUSED;
        slab *to = slabs_with_room(&self->slabs, c->bytes); /* again, as finding may have run Python */
        uint64_t place;
        if (!to || !slabs_write(&self->slabs, to, c->small, c->bytes, number, &place)) {
            install_forget(self, r, number);
            if (to) evict_lost_slab(self, to);
            continue;
        }
        PyObject *before[2];
        install(self, r, number, place, c, before);
        drop(before);
        return STORE_DONE;
    }
}

/* ---- a value with a range of its own --------------------------------------------------------- */

static int store_range(cache_core *self, store_request *r, const coded *c, PyObject **answer) {
    uint64_t handle;
    const int written = write_range(self, c, r->hash, r->cost_ns, &handle);
    if (written != STORE_DONE) return written;
    const Py_ssize_t bytes = (Py_ssize_t)vrange_bytes(handle);
    PyObject *lease = lease_of_pinned(handle, (Py_ssize_t)c->bytes, 0), *first = NULL;
    const int answered = lease ? answer_first(self, r, c, lease, &first) : STORE_FAILED;
    const entry_no number = answered == STORE_DONE ? install_target(self, r) : FIND_FAILED;
    if (number == FIND_FAILED || !number || !self->arena) {
        vrange_free(handle);
        Py_XDECREF(lease);
        Py_XDECREF(first);
        if (answered != STORE_DONE) return answered;
        if (number == FIND_FAILED) return STORE_FAILED;
        return self->arena ? STORE_REFUSED : core_raise_closed(self);
    }
    vrange_set_owner(handle, number);
    self->bytes += bytes;
    PyObject *before[2];
    install(self, r, number, handle, c, before);
    drop(before);
    r->lease = lease;
    if (first) replace(answer, first);
    return STORE_DONE;
}

/* ---- both ------------------------------------------------------------------------------------ */

static int code(cache_core *self, store_request *r, PyObject *value, coded *c) {
    switch (code_value(self, value, c)) {
    case CODED: return STORE_DONE;
    case NOT_KEPT: r->is_unfit = true; return STORE_REFUSED;
    default: return STORE_FAILED;
    }
}

/* Its key is in the request, or in the flight's entry unless the flight was called off meanwhile. */
static void count_refused(cache_core *self, const store_request *r) {
    vrange_account_refused(self->account);
    PyObject *key = !r->of ? r->key : r->of->number ? entry_at(&self->index, r->of->number)->key
                                                    : NULL;
    if (key) listener_note(self, key, LEFT_REFUSED);
}

/* Whether the error that is set says only that there is no memory to store the value, or that the cache was
 * closed while a caller computed it. */
static bool may_be_had_all_the_same(const cache_core *self, const store_request *r) {
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) return true;
    return r->has_caller && self->closed && PyErr_ExceptionMatches(PyExc_ValueError);
}

/* Sets the answer to the object that later callers get as well. For an ndarray that is a view of the stored
 * bytes, so that the memory is not held twice. It stays the value itself where no caller can tell the
 * difference. */
static int store(cache_core *self, store_request *r, PyObject **answer) {
    r->called_off = r->of && r->of->number == 0;
    if (r->called_off) return STORE_REFUSED; /* its result is not to be stored */
    coded c;
    evict_left_behind(self);
    int done = open_arena(self); /* first, because it reads the limits that coding a large value checks */
    memset(&c, 0, offsetof(coded, small));
    if (done == STORE_DONE) done = code(self, r, *answer, &c);
    if (done == STORE_DONE && r->cost_ns) self->last_cost_ns = r->cost_ns;
    if (done == STORE_DONE && !c.is_small) {
        done = store_range(self, r, &c, answer);
    } else if (done == STORE_DONE) {
        PyObject *first;
        done = answer_first(self, r, &c, NULL, &first);
        if (done == STORE_DONE) done = store_small(self, r, &c);
        if (first && done != STORE_FAILED) replace(answer, first);
        else Py_XDECREF(first);
    }
    coded_release(&c);
    if (done == STORE_FAILED && may_be_had_all_the_same(self, r)) {
        PyErr_Clear();
        done = STORE_REFUSED;
    }
    if (done == STORE_REFUSED && !r->called_off) count_refused(self, r);
    if (done == STORE_DONE) evict_to_bounds(self, r->stored_in, r->stamp);
    Py_XDECREF(r->lease);
    if (done == STORE_DONE) hot_give_way();
    limbo_drain(self);
    if (self->graves) clear_some(self, 8);
    return done;
}

static uint64_t expiry_of(const cache_core *self) {
    return self->ttl_ns ? os_now_ns() + self->ttl_ns + self->stale_ns : 0;
}

/* Leaves the key as if the kernel had taken its value at once. May run Python. */
static int be_purged(cache_core *self, PyObject *key, key_hash hash) {
    const entry_no number = index_find(&self->index, key, hash);
    if (number == FIND_FAILED) return STORE_FAILED;
    if (number) evict_entry(self, number, NOT_TOLD); /* store() noted that it was refused */
    pace_remember(self, hash, 0, true);
    limbo_drain(self);
    return STORE_DONE;
}

/* Removes the value that the failed store should have replaced. Keeps the error. May run Python. */
static void forget(cache_core *self, PyObject *key, key_hash hash) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    const entry_no number = index_find(&self->index, key, hash);
    if (number == FIND_FAILED) PyErr_Clear();
    else if (number) evict_entry(self, number, LEFT_REFUSED);
    limbo_drain(self);
    PyErr_Restore(type, error, traceback);
}

int store_set(cache_core *self, PyObject *key, key_hash hash, PyObject *value, uint64_t expires_ns,
              uint64_t cost_ns) {
    if (!core_is_open(self)) return STORE_FAILED;
    if (core_keeps_nothing(self)) return STORE_DONE;
    store_request r = {.key = key,
                       .hash = hash,
                       .expires_ns = expires_ns ? expires_ns : expiry_of(self),
                       .cost_ns = cost_ns};
    PyObject *answer = Py_NewRef(value);
    int done = store(self, &r, &answer);
    Py_DECREF(answer);
    if (done == STORE_REFUSED) done = be_purged(self, key, hash);
    else if (done == STORE_FAILED) forget(self, key, hash);
    return listener_tell(self) < 0 ? STORE_FAILED : done;
}

int store_renewed(cache_core *self, PyObject *key, key_hash hash, PyObject *value, uint32_t stamp,
                  uint64_t cost_ns) {
    if (self->closed) return false;
    store_request r = {
        .key = key, .hash = hash, .renews = stamp, .expires_ns = expiry_of(self), .cost_ns = cost_ns};
    PyObject *answer = Py_NewRef(value);
    const int done = store(self, &r, &answer);
    Py_DECREF(answer);
    return listener_tell(self) < 0 || done == STORE_FAILED ? -1 : done == STORE_DONE;
}

PyObject *store_computed(flight *of, PyObject *value, uint64_t cost_ns) {
    cache_core *self = of->core;
    if (self->closed) return core_answer_unstored(self, Py_NewRef(value));
    store_request r = {
        .of = of, .hash = of->hash, .expires_ns = expiry_of(self), .cost_ns = cost_ns, .has_caller = true};
    PyObject *answer = Py_NewRef(value);
    const int done = store(self, &r, &answer);
    of->is_private = done == STORE_DONE && r.is_private;
    if (done == STORE_FAILED) Py_CLEAR(answer);
    if (done == STORE_REFUSED && !r.is_unfit) answer = core_answer_unstored(self, answer);
    return answer;
}
