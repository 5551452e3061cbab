/* Closing an arena: its ranges are freed in steps, and then it is unmapped.
 *
 * The ranges of a span form a list in address order. The walk over it is a cursor in the arena, under its lock:
 * if the range that it points to is joined with the one below, or changes places, the cursor follows. So
 * closing takes as long as the arena has ranges, however many the process has. */
#include <pthread.h>

#include "base/gate.h"
#include "ranges/arena.h"
#include "ranges/range_table.h"

#define CLOSED_AT_ONCE 64 /* ranges, between two chances for a fork */

static void begin(vrange_arena *arena) {
    pthread_mutex_lock(&arena->lock);
    if (!arena->closing) {
        /* Counting one range more keeps the arena while its ranges are freed. */
        arena->closing = true;
        atomic_fetch_add(&arena->ranges, 1);
    }
    pthread_mutex_unlock(&arena->lock);
}

/* Moves the cursor over the next used ranges, until they have `most` bytes. Adds their bytes to *bytes. */
static size_t next_used(vrange_arena *arena, uint64_t *handles, size_t most, size_t *bytes) {
    size_t count = 0;
    pthread_mutex_lock(&arena->lock);
    while (count < CLOSED_AT_ONCE && *bytes < most && !arena->torn) {
        while (!arena->walk && arena->walk_span < SPANS_MOST)
            arena->walk = arena->spans[arena->walk_span++].lowest;
        if (!arena->walk) break;
        const range *r = table_at(arena->walk);
        const uint64_t word = atomic_load(range_word(r));
        arena->walk = r->above;
        if (word_state(word) == FREE) continue;
        handles[count++] = range_handle(r, word);
        *bytes += range_bytes(r);
    }
    pthread_mutex_unlock(&arena->lock);
    return count;
}

int vrange_arena_close_some(vrange_arena *arena, size_t most) {
    begin(arena);
    for (size_t bytes = 0; bytes < most;) {
        uint64_t handles[CLOSED_AT_ONCE];
        gate_enter();
        const size_t count = next_used(arena, handles, most, &bytes);
        gate_leave();
        if (count == 0) {
            gate_enter();
            arena_end_closing(arena);
            gate_leave();
            return 0;
        }
        vrange_free_all(handles, count);
    }
    return 1;
}

void vrange_arena_close(vrange_arena *arena) {
    while (vrange_arena_close_some(arena, SIZE_MAX)) {
    }
}
