/* What the owner of a range notes in its descriptor, so that it needs no table from handles to owners. */
#include "ranges/range_busy.h"

int vrange_set_owner(uint64_t handle, uint32_t owner) {
    range *r = range_of(handle);
    if (!r || !is_current(atomic_load(range_word(r)), handle & WORD_GENERATION)) return VRANGE_GONE;
    atomic_store_explicit(&r->owner, owner, memory_order_relaxed);
    return VRANGE_OK;
}

uint32_t vrange_owner(uint64_t handle) {
    range *r = range_of(handle);
    return r && (atomic_load(range_word(r)) & WORD_GENERATION) == (handle & WORD_GENERATION)
               ? atomic_load_explicit(&r->owner, memory_order_relaxed)
               : 0;
}

size_t vrange_bytes(uint64_t handle) {
    range *r = range_of(handle);
    return r && (atomic_load(range_word(r)) & WORD_GENERATION) == (handle & WORD_GENERATION) ? range_bytes(r)
                                                                                             : 0;
}
