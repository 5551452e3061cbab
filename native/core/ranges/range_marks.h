/* Tells the children of this process that a range is about to change (owners.h). */
#ifndef VRANGE_RANGE_MARKS_H
#define VRANGE_RANGE_MARKS_H

#include <stddef.h>

#include "ranges/range_state.h"

/* The number of forks that this process has made. */
extern _Atomic uint32_t range_forks;

/* NULL: no child has been made since the range's chunk exists. */
static inline range_mark *range_mark_of(const range *r) {
    table_chunk *chunk = range_chunk(r);
    range_mark *marks = atomic_load_explicit(&chunk->marks, memory_order_acquire);
    return marks ? &marks[r - chunk->ranges] : NULL;
}

/* Call it before the content changes or goes, with the range BUSY or pinned. From then on no child reads it. */
static inline void range_changes(const range *r) {
    range_mark *mark = range_mark_of(r);
    if (!mark) return;
    atomic_store_explicit(&mark->changed, atomic_load(&range_forks), memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

/* Call it before sentinels take the place of words, or words that of sentinels. The content stays the same. */
static inline void range_sentinels_change(const range *r) {
    range_mark *mark = range_mark_of(r);
    if (!mark) return;
    atomic_fetch_add_explicit(&mark->sentinels, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

#endif
