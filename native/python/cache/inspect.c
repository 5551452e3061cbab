/* Looking at a core as a whole; see inspect.h. */
#include "python/cache/inspect.h"

#include <stdlib.h>

#include "python/cache/evict.h"
#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"
#include "python/cache/lookup.h"
#include "python/cache/pace.h"

#define LOOKED_AT_ONCE 10000 /* entries, between two chances for other threads */
#define CORE(object) ((cache_core *)(object))

entry_no core_find(cache_core *self, PyObject *key) {
    key_hash hash;
    if (!hash_key(key, &hash)) return FIND_FAILED;
    const entry_no number = index_find(&self->index, key, hash);
    if (!number || number == FIND_FAILED) return number;
    const entry *e = entry_at(&self->index, number);
    if (e->place == PLACE_FLIGHT || entry_is_expired(self, number)) return 0;
    return e->place || e->value ? number : 0;
}

/* ---- as a whole ------------------------------------------------------------------------------ */

PyObject *core_count(PyObject *object, PyObject *unused) {
    (void)unused;
    cache_core *self = CORE(object);
    evict_sweep_all(self, true);
    if (listener_tell(self) < 0) return NULL;
    return PyLong_FromSsize_t((Py_ssize_t)self->index.entries - self->flight_count);
}

typedef struct {
    uint32_t serial;
    entry_no number;
} in_order;

static int by_serial(const void *left, const void *right) {
    const int32_t difference =
        (int32_t)(((const in_order *)left)->serial - ((const in_order *)right)->serial);
    return (difference > 0) - (difference < 0);
}

/* The entries that have a value, by the order in which their keys were added. Other threads run meanwhile. */
static in_order *numbers_in_order(const cache_core *self, Py_ssize_t *count) {
    const uint32_t end = self->index.records; /* what is added behind is newer than this call */
    in_order *order = malloc(((size_t)end + 1) * sizeof *order);
    bool is_sorted = true;
    *count = 0;
    for (entry_no number = 1; order && number < end; number++) {
        if (number % LOOKED_AT_ONCE == 0) core_let_others_run();
        if (number >= self->index.records) break; /* cleared meanwhile */
        const entry *e = entry_at(&self->index, number);
        if (e->state != RECORD_LISTED || e->place == PLACE_FLIGHT || (!e->place && !e->value)) continue;
        order[*count] = (in_order){e->serial, number};
        if (*count && by_serial(&order[*count - 1], &order[*count]) > 0) is_sorted = false;
        ++*count;
    }
    if (is_sorted) return order;
    if (*count < LOOKED_AT_ONCE) {
        qsort(order, (size_t)*count, sizeof *order, by_serial);
        return order;
    }
    Py_BEGIN_ALLOW_THREADS
    qsort(order, (size_t)*count, sizeof *order, by_serial);
    Py_END_ALLOW_THREADS
    return order;
}

static bool has_left(const cache_core *self, const in_order *one) {
    if (one->number >= self->index.records) return true;
    const entry *e = entry_at(&self->index, one->number);
    return e->state != RECORD_LISTED || e->serial != one->serial;
}

PyObject *core_keys(PyObject *object, PyObject *unused) {
    (void)unused;
    cache_core *self = CORE(object);
    evict_sweep_all(self, true);
    if (listener_tell(self) < 0) return NULL;
    Py_ssize_t count;
    in_order *order = numbers_in_order(self, &count);
    PyObject *keys = order ? PyList_New(0) : PyErr_NoMemory();
    for (Py_ssize_t i = 0; keys && i < count; i++) {
        if (i % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1) core_let_others_run();
        if (has_left(self, &order[i])) continue;
        if (PyList_Append(keys, entry_at(&self->index, order[i].number)->key) < 0) Py_CLEAR(keys);
    }
    free(order);
    return keys;
}

static int add_handle(PyObject *set, uint64_t handle) {
    PyObject *number = handle ? PyLong_FromUnsignedLongLong(handle) : NULL;
    const int result = number ? PySet_Add(set, number) : handle ? -1
                                                                : 0;
    Py_XDECREF(number);
    return result;
}

static PyObject *all_handles(const cache_core *self) {
    PyObject *set = PySet_New(NULL);
    for (entry_no number = 1; set && number < self->index.records; number++) {
        const entry *e = entry_at(&self->index, number);
        if (e->state != RECORD_LISTED || e->place & (PLACE_SLOT | PLACE_FLIGHT)) continue;
        if (add_handle(set, e->place) < 0) Py_CLEAR(set);
    }
    for (uint32_t i = 0; set && i < self->slabs.room; i++) {
        const slab *s = slab_numbered(&self->slabs, i);
        if (s && add_handle(set, s->handle) < 0) Py_CLEAR(set);
    }
    return set;
}

PyObject *core_handles(PyObject *object, PyObject *keys) {
    cache_core *self = CORE(object);
    if (keys == Py_None) return all_handles(self);
    PyObject *set = PySet_New(NULL);
    const Py_ssize_t count = PyTuple_Size(keys);
    if (count < 0) Py_CLEAR(set);
    for (Py_ssize_t i = 0; set && i < count; i++) {
        const entry_no number = core_find(self, PyTuple_GetItem(keys, i));
        if (number == FIND_FAILED) Py_CLEAR(set);
        else if (number && add_handle(set, core_range_of(self, entry_at(&self->index, number))) < 0)
            Py_CLEAR(set);
    }
    return set;
}

PyObject *core_cool(PyObject *object, PyObject *keys) {
    cache_core *self = CORE(object);
    const Py_ssize_t count = keys == Py_None ? 0 : PyTuple_Size(keys);
    if (count < 0) return NULL;
    if (keys == Py_None) hot_clear(self);
    for (Py_ssize_t i = 0; i < count; i++) {
        const entry_no number = core_find(self, PyTuple_GetItem(keys, i));
        if (number == FIND_FAILED) return NULL;
        if (number) hot_let_go(self, number);
    }
    return listener_pass(self, Py_NewRef(Py_None));
}

PyObject *core_hot_keys(PyObject *object, PyObject *unused) {
    (void)unused;
    const cache_core *self = CORE(object);
    PyObject *keys = PyList_New(0);
    for (entry_no number = self->oldest; keys && number; number = entry_at(&self->index, number)->newer) {
        if (PyList_Append(keys, entry_at(&self->index, number)->key) < 0) Py_CLEAR(keys);
    }
    return keys;
}

PyObject *core_entries(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromSsize_t((Py_ssize_t)CORE(object)->index.entries - CORE(object)->flight_count);
}

PyObject *core_flight(PyObject *object, PyObject *key) {
    cache_core *self = CORE(object);
    key_hash hash;
    const entry_no number = hash_key(key, &hash) ? index_find(&self->index, key, hash) : FIND_FAILED;
    if (number == FIND_FAILED) return NULL;
    const entry *e = number ? entry_at(&self->index, number) : NULL;
    return Py_NewRef(e && e->place == PLACE_FLIGHT ? e->form : Py_None);
}

PyObject *core_uses(PyObject *object, PyObject *key) {
    cache_core *self = CORE(object);
    const entry_no number = core_find(self, key);
    if (number == FIND_FAILED) return NULL;
    if (number)
        return PyLong_FromUnsignedLong(vrange_uses(core_range_of(self, entry_at(&self->index, number))));
    key_hash hash;
    return hash_key(key, &hash) ? PyLong_FromUnsignedLong(pace_remembered_uses(self, hash)) : NULL;
}
