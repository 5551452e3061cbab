/* Whether a core agrees with itself: tests check it after every step. */
#include "python/cache/check.h"

#include "python/cache/core.h"

static PyObject *disagrees(const char *about, Py_ssize_t found, Py_ssize_t counted) {
    return PyErr_Format(PyExc_AssertionError, "%s: found %zd, counted %zd", about, found, counted);
}

static Py_ssize_t bytes_of_slabs(const cache_core *self, Py_ssize_t *slots) {
    Py_ssize_t bytes = 0;
    for (uint32_t i = 0; i < self->slabs.room; i++) {
        const slab *s = slab_numbered(&self->slabs, i);
        if (!s) continue;
        bytes += SLAB_BYTES;
        *slots += s->used;
    }
    return bytes;
}

static bool is_owned(const cache_core *self, const entry *e, entry_no number) {
    if (!(e->place & PLACE_SLOT)) return vrange_owner(e->place) == number;
    return slab_owner(slab_of(&self->slabs, e->place), slab_slot(e->place)) == number;
}

static PyObject *check_hot(const cache_core *self, Py_ssize_t told) {
    Py_ssize_t bytes = 0, count = 0;
    for (entry_no number = self->oldest; number; number = entry_at(&self->index, number)->newer) {
        const entry *e = entry_at(&self->index, number);
        if (!e->value || e->state != RECORD_LISTED) return disagrees("hot without a value", number, 0);
        bytes += e->weight;
        count++;
    }
    if (count != told) return disagrees("hot values", count, told);
    if (bytes != self->hot_bytes) return disagrees("hot bytes", bytes, self->hot_bytes);
    Py_RETURN_NONE;
}

PyObject *core_check(PyObject *object, PyObject *unused) {
    (void)unused;
    const cache_core *self = (cache_core *)object;
    Py_ssize_t entries = 0, flights = 0, hot = 0, slots = 0, used = 0, bytes = bytes_of_slabs(self, &used);
    for (entry_no number = 1; number < self->index.records; number++) {
        const entry *e = entry_at(&self->index, number);
        if (e->state == RECORD_LIMBO) return disagrees("in limbo", number, 0);
        if (e->state != RECORD_LISTED) continue;
        entries++;
        hot += e->value != NULL;
        flights += e->place == PLACE_FLIGHT;
        slots += !!(e->place & PLACE_SLOT);
        if (!e->place && !e->value) return disagrees("neither place nor value", number, 0);
        if (e->place == PLACE_FLIGHT || !e->place) continue;
        if (!is_owned(self, e, number)) return disagrees("owner of a place", number, 0);
        if (!(e->place & PLACE_SLOT)) bytes += (Py_ssize_t)vrange_bytes(e->place);
        if (index_find((cache_index *)&self->index, e->key, e->hash) != number)
            return disagrees("not found by its key", number, 0);
    }
    if (entries != (Py_ssize_t)self->index.entries) return disagrees("entries", entries, self->index.entries);
    if (flights != self->flight_count) return disagrees("flights", flights, self->flight_count);
    if (slots != used) return disagrees("slots", slots, used);
    if (bytes != self->bytes) return disagrees("bytes", bytes, self->bytes);
    return check_hot(self, hot);
}
