/* Limbo; see limbo.h.
 *
 * Dropping a reference may run Python code, and freeing a large range releases the GIL. Neither may happen
 * while the state is being changed. So both wait here until the state is whole (core.h). */
#include "python/cache/limbo.h"

#include <stdlib.h>

#include "python/cache/listener.h"
#include "python/cache/pace.h"

/* Freeing a large range takes long, so it is left for limbo_drain, which releases the GIL for it. */
void limbo_free_range(cache_core *self, uint64_t handle, Py_ssize_t bytes) {
    self->bytes -= bytes;
    if (bytes < LET_OTHERS_RUN_BYTES || self->leaving_count == LEAVING_MOST) vrange_free(handle);
    else self->leaving[self->leaving_count++] = handle;
}

uint32_t limbo_free_place(cache_core *self, uint64_t place) {
    if (place == PLACE_NOWHERE || place == PLACE_FLIGHT) return 0;
    if (place & PLACE_SLOT) {
        const uint64_t emptied = slabs_free_slot(&self->slabs, place);
        if (emptied) limbo_free_range(self, emptied, SLAB_BYTES);
        return 0;
    }
    const uint32_t uses = vrange_uses(place);
    limbo_free_range(self, place, (Py_ssize_t)vrange_bytes(place));
    return uses;
}

static leave_cause cause_of(const cache_core *self, loss how) {
    if (self->is_heir || how == LOST_BY_OWNER) return NOT_TOLD;
    return how == LOST_PURGED ? LEFT_PURGED : LEFT_EVICTED;
}

void limbo_lose(cache_core *self, entry_no number, uint32_t uses, loss how) {
    entry *e = entry_at(&self->index, number);
    e->place = PLACE_NOWHERE;
    if (e->value) return; /* leaves together with its hot value */
    pace_remember(self, e->hash, uses, how != LOST_EVICTED);
    listener_note(self, e->key, cause_of(self, how));
    index_bury(&self->index, number);
}

static void free_leaving(cache_core *self) {
    while (self->leaving_count) {
        const uint64_t handle = self->leaving[--self->leaving_count];
        Py_BEGIN_ALLOW_THREADS
        vrange_free(handle);
        Py_END_ALLOW_THREADS
    }
}

static void free_ghosts(cache_core *self) {
    ghost *gone = ghosts_take_gone(&self->ghosts);
    if (!gone) return;
    Py_BEGIN_ALLOW_THREADS
    free(gone);
    Py_END_ALLOW_THREADS
}

void limbo_drain(cache_core *self) {
    if (!self->index.limbo && !self->leaving_count) return;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    free_leaving(self);
    free_ghosts(self);
    index_drain(&self->index);
    PyErr_Restore(type, error, traceback);
}
