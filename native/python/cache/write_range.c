/* Write; see write_range.h.
 *
 * The content is copied straight from the memory of the value, or Python writes it in pieces
 * (_cache/collector.py). That may take long, so other threads run meanwhile. No entry refers to the range yet:
 * install.c does that afterwards, in one stretch. */
#include "python/cache/write_range.h"

#include <errno.h>

#include "os/os.h"
#include "python/cache/evict.h"
#include "python/cache/pace.h"
#include "python/lease.h"
#include "ranges/worth.h"

static Py_ssize_t pages_bytes(size_t bytes) {
    const size_t page = os_page_bytes();
    return (Py_ssize_t)((bytes + page - 1) / page * page);
}

/* A range with the parts in it, or for `write` to fill. */
static int take_range(vrange_arena *arena, const coded *c, uint64_t cost_ns, uint32_t uses, uint64_t *handle) {
    if (!c->write) return vrange_store(arena, c->parts, c->part_count, cost_ns, uses, handle);
    const int result = vrange_allocate(arena, c->bytes, handle);
    if (result != VRANGE_OK) return result;
    if (cost_ns) vrange_set_cost(*handle, cost_ns);
    vrange_used(*handle, uses / USE);
    return result;
}

static int take_range_without_gil(vrange_arena *arena, const coded *c, uint64_t cost_ns, uint32_t uses,
                                  uint64_t *handle) {
    int result;
    if (c->bytes < LET_OTHERS_RUN_BYTES) return take_range(arena, c, cost_ns, uses, handle);
    Py_BEGIN_ALLOW_THREADS
    result = take_range(arena, c, cost_ns, uses, handle);
    if (result == -ENOBUFS && vrange_room_take(VRANGE_OTHERS_BYTES) == VRANGE_OK) {
        /* Memory that seemed free was not, or is in use by now. Try once more, with more room. */
        result = take_range(arena, c, cost_ns, uses, handle);
        vrange_room_give(VRANGE_OTHERS_BYTES);
    }
    Py_END_ALLOW_THREADS
    return result;
}

/* Lets Python write into the range, which stays pinned. May run Python. */
static int write_by_python(const coded *c, uint64_t handle) {
    if (vrange_pin_whole(handle) != VRANGE_OK) return STORE_REFUSED; /* the cache was closed meanwhile */
    PyObject *lease = lease_of_pinned(handle, (Py_ssize_t)c->bytes, 1);
    PyObject *written = lease ? PyObject_CallFunctionObjArgs(c->write, lease, NULL) : NULL;
    Py_XDECREF(lease);
    Py_XDECREF(written);
    return written ? STORE_DONE : STORE_FAILED;
}

int write_range(cache_core *self, const coded *c, key_hash hash, uint64_t cost_ns, uint64_t *handle) {
    const uint32_t uses = pace_remembered_uses(self, hash);
    /* Evict nothing for a value that finds no place all the same. */
    if (!self->arena) return core_raise_closed(self);
    if (pages_bytes(c->bytes) > self->bytes_most || !vrange_arena_can_hold(self->arena, c->bytes))
        return STORE_REFUSED;
    for (;;) {
        vrange_arena *arena = self->arena;
        if (!arena) return core_raise_closed(self);
        const int result = take_range_without_gil(arena, c, cost_ns, uses, handle);
        if (result == VRANGE_OK) break;
        if (!self->arena) return core_raise_closed(self);
        if (result == -ENOBUFS || !evict_make_room(self, c->bytes)) return STORE_REFUSED;
    }
    const int written = c->write ? write_by_python(c, *handle) : STORE_DONE;
    if (written == STORE_DONE) return STORE_DONE;
    vrange_free(*handle);
    vrange_release(*handle);
    return written;
}
