/* Clearing; see clear.h.
 *
 * A cache of a million entries has a million references to drop, and as many ranges to free. The caller that
 * clears it does not wait for that: the index and the slabs are moved into a grave as they are, and the cache
 * is empty. Later stores, and a thread that clear() starts (_cache/background_release.py), empty the graves a
 * few entries at a time. */
#include "python/cache/clear.h"

#include <stdlib.h>
#include <string.h>

#include "python/cache/evict.h"
#include "python/cache/flight.h"
#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"

#define BURIED_AT_ONCE 64u
#define LITTLE_BYTES ((Py_ssize_t)8 << 20)
#define LITTLE_AT_ONCE 4000u /* entries, of a cache with so few bytes */
#define FREED_AT_ONCE_BYTES ((size_t)64 << 10) /* with the GIL held */

typedef struct grave {
    struct grave *next;
    cache_index index;
    slab_table slabs;
    ghosts ghosts;
    deadlines deadlines;
    /* The next ones: records and buckets from the end, so that the heap shrinks. */
    uint32_t slab, record, bucket;
    bool arena_is_gone;
} grave;

static void forget_places(cache_core *self) {
    self->slabs = (slab_table){0};
    hot_forget(self);
    self->bytes = 0;
    self->hand = 0;
    self->deadlines = (deadlines){0};
    self->ghosts = (ghosts){0};
}

static void clear_all(cache_core *self) {
    grave *g = calloc(1, sizeof *g);
    if (!g) { /* no memory for a grave: one entry at a time */
        for (entry_no number = 1; number < self->index.records; number++) {
            if (entry_at(&self->index, number)->state == RECORD_LISTED) evict_entry(self, number, NOT_TOLD);
        }
        ghosts_clear(&self->ghosts);
        limbo_drain(self);
        return;
    }
    while (self->index.limbo) limbo_drain(self);
    while (self->flights) flight_detach(self->flights);
    g->index = self->index;
    g->slabs = self->slabs;
    g->ghosts = self->ghosts;
    g->deadlines = self->deadlines;
    g->arena_is_gone = !self->arena;
    g->record = g->index.records;
    g->bucket = g->index.bucket_room;
    g->next = self->graves;
    self->graves = g;
    index_forget(&self->index);
    forget_places(self);
}

typedef struct {
    uint64_t handles[BURIED_AT_ONCE];
    uint32_t count;
    size_t bytes;
} freed_ranges;

static void add_range(freed_ranges *ranges, uint64_t handle) {
    ranges->handles[ranges->count++] = handle;
    ranges->bytes += vrange_bytes(handle);
}

/* Another thread may empty the grave meanwhile. */
static void free_ranges(const freed_ranges *ranges) {
    if (ranges->bytes <= FREED_AT_ONCE_BYTES) {
        vrange_free_all(ranges->handles, ranges->count);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    vrange_free_all(ranges->handles, ranges->count);
    Py_END_ALLOW_THREADS
}

static void bury_slabs(grave *g, uint32_t most) {
    freed_ranges ranges = {.count = 0};
    for (; most > 0 && g->slab < g->slabs.room; most--) {
        const uint64_t handle = slabs_dismantle(&g->slabs, g->slab++);
        if (handle && !g->arena_is_gone) add_range(&ranges, handle);
    }
    free_ranges(&ranges);
}

static void add_reference(PyObject **references, uint32_t *count, PyObject *object) {
    if (object) references[(*count)++] = object;
}

/* May run Python. */
static void bury_entries(grave *g, uint32_t most) {
    PyObject *references[3 * BURIED_AT_ONCE];
    uint32_t count = 0;
    freed_ranges ranges = {.count = 0};
    for (; most > 0 && g->record > 1; most--) {
        entry *e = entry_at(&g->index, --g->record);
        const bool has_range = e->place && !(e->place & (PLACE_SLOT | PLACE_FLIGHT));
        if (has_range && !g->arena_is_gone) add_range(&ranges, e->place);
        add_reference(references, &count, e->key);
        add_reference(references, &count, e->value);
        add_reference(references, &count, e->form);
        *e = (entry){0};
        if (g->record % CHUNK == 0) index_free_chunk(&g->index, g->record / CHUNK);
    }
    free_ranges(&ranges);
    while (count) Py_DECREF(references[--count]);
}

static void free_tables(ghost *const *ghosts_gone, deadlines *deadlines_gone) {
    for (int i = 0; i < GHOST_TABLES; i++) free(ghosts_gone[i]);
    expiry_clear(deadlines_gone);
}

static void free_grave(grave *g) {
    index_free(&g->index);
    free(g->slabs.all);
    ghost *gone[GHOST_TABLES];
    const size_t bytes = ghosts_let_go(&g->ghosts, gone) + g->deadlines.room * sizeof(deadline);
    if (bytes < LET_OTHERS_RUN_BYTES) {
        free_tables(gone, &g->deadlines);
    } else {
        Py_BEGIN_ALLOW_THREADS
        free_tables(gone, &g->deadlines);
        Py_END_ALLOW_THREADS
    }
    free(g);
}

bool clear_some(cache_core *self, uint32_t most) {
    while (most > 0 && self->graves) {
        grave *g = self->graves; /* read each time: dropping a reference may lead back here */
        const uint32_t some = most < BURIED_AT_ONCE ? most : BURIED_AT_ONCE;
        if (g->slab < g->slabs.room) {
            bury_slabs(g, some);
        } else if (g->record > 1) {
            bury_entries(g, some);
        } else if (g->bucket) {
            free(g->index.buckets[--g->bucket]);
            g->index.buckets[g->bucket] = NULL;
        } else {
            self->graves = g->next;
            free_grave(g);
        }
        most -= some;
    }
    return self->graves != NULL;
}

/* A small cache is given back as a whole. A thread for that would cost more than it does, and while it starts
 * it may receive a signal in place of the main thread, which then runs its handler late. */
bool clear_now(cache_core *self) {
    const bool is_little = self->bytes <= LITTLE_BYTES;
    clear_all(self);
    return clear_some(self, is_little ? LITTLE_AT_ONCE : CLEARED_AT_ONCE);
}

int clear_visit(const cache_core *self, visitproc visit, void *arg) {
    for (const grave *g = self->graves; g; g = g->next) {
        const int result = index_visit(&g->index, visit, arg);
        if (result) return result;
    }
    return 0;
}
