/* Whether a fork's other side still has the pages of a range; see range_shared.h. */
#include "ranges/range_shared.h"

#include <stddef.h>

#include "os/os.h"
#include "ranges/arena_state.h"

/* The range is not BUSY: another thread may free it meanwhile, and then its descriptor belongs to no arena. */
static bool has_shared_page(const range *r) {
    const vrange_arena *arena = atomic_load(&r->arena);
    char *base = arena ? arena->spans[r->span].base : NULL;
    if (!base) return false;
    char *first = base + (size_t)r->first_page * os_page_bytes();
    return os_is_shared(first) || (r->pages > 1 && os_is_shared(first + (r->pages - 1) * os_page_bytes()));
}

bool range_is_shared(range *r, bool looks) {
    if (!atomic_load_explicit(&r->shared, memory_order_relaxed)) return false;
    if (!looks || has_shared_page(r)) return true;
    atomic_store_explicit(&r->shared, false, memory_order_relaxed); /* no fork can begin inside the gate */
    return false;
}
