/* What a core knows of itself as a whole, and the list of all cores of the process. */
#include "python/cache/core.h"

#include "os/os.h"

#define PAUSE_NS 100000u

static cache_core *first;

int core_raise_closed(const cache_core *self) {
    PyErr_Format(PyExc_ValueError, "cache %R is closed", self->name);
    return -1;
}

bool core_is_open(const cache_core *self) { return !self->closed || core_raise_closed(self) == 0; }

void core_let_others_run(void) {
    /* Without a pause, this thread would win the GIL back before other threads wake up. */
    Py_BEGIN_ALLOW_THREADS
    os_sleep_ns(PAUSE_NS);
    Py_END_ALLOW_THREADS
}

uint64_t core_range_of(const cache_core *self, const entry *e) {
    if (e->place & PLACE_SLOT) return slab_of(&self->slabs, e->place)->handle;
    return e->place == PLACE_FLIGHT ? 0 : e->place;
}

bool core_is_away(const cache_core *self, const entry *e) { return vrange_is_away(core_range_of(self, e)); }

void core_join(cache_core *self) {
    self->following = first;
    if (first) first->previous = self;
    first = self;
}

void core_leave(cache_core *self) {
    if (self->following) self->following->previous = self->previous;
    if (self->previous) self->previous->following = self->following;
    else first = self->following;
    self->previous = self->following = NULL;
}

cache_core *cores_first(void) { return first; }
