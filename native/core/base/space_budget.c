/* The budget of address space; see space_budget.h.
 *
 * Under a limit, vrange has an eighth of it at most. It also leaves three quarters of what is still free below
 * the limit at the time. Both together leave a program half of its limit, in one piece, whatever caches did
 * before.
 *
 * The child of a fork inherits all mappings, and therefore the count. */
#include "base/space_budget.h"

#include <stdatomic.h>

#include "base/amounts.h"
#include "os/os.h"
#include "vrange.h"

#define LIMIT_SHARE 8
#define FREE_SHARE 4  /* of what is free below a limit */
#define WHOLE_SHARE 4 /* of what the processor can address */

/* Eighths of the budget, for caches and the heap together */
#define FIRST_EIGHTHS 6
#define MORE_EIGHTHS 5

static struct {
    /* Reserved now: for vrange's own use, of that for caches and the heap, and what the program asked for. */
    _Atomic uint64_t own, kept, asked;
} space;

static uint64_t budget_below(uint64_t address_space, uint64_t data) {
    uint64_t budget = os_address_space_bytes() / WHOLE_SHARE;
    if (address_space != UINT64_MAX) budget = lesser(budget, address_space / LIMIT_SHARE);
    /* Reserved space does not count as data, but what is made accessible of it does. */
    if (data != UINT64_MAX) budget = lesser(budget, data / LIMIT_SHARE);
    return budget;
}

/* What may be reserved for vrange's own use, if so much is reserved already. `less_used` bytes of what the
 * process uses do not count. */
static uint64_t left_for(space_use use, uint64_t own, uint64_t kept, uint64_t less_used) {
    const uint64_t address_space = os_address_space_limit(), data = os_data_limit();
    const uint64_t budget = budget_below(address_space, data);
    uint64_t left = above(budget, own), used, used_data;
    if (use == SPACE_FIRST) left = lesser(left, above(budget / 8 * FIRST_EIGHTHS, kept));
    if (use == SPACE_MORE) left = lesser(left, above(budget / 8 * MORE_EIGHTHS, kept));
    if ((address_space != UINT64_MAX || data != UINT64_MAX) && os_address_space(&used, &used_data) == 0) {
        const uint64_t still_used = above(used, less_used);
        if (address_space != UINT64_MAX) left = lesser(left, above(address_space, still_used) / FREE_SHARE);
        if (data != UINT64_MAX) left = lesser(left, above(data, used_data) / FREE_SHARE);
    }
    return left;
}

uint64_t space_budget(void) { return budget_below(os_address_space_limit(), os_data_limit()); }

uint64_t space_most(space_use use) {
    if (use == SPACE_ASKED) return UINT64_MAX;
    return left_for(use, atomic_load(&space.own), atomic_load(&space.kept), 0);
}

static bool is_kept(space_use use) { return use == SPACE_FIRST || use == SPACE_MORE; }

uint64_t space_most_instead(size_t bytes, uint64_t passing) {
    const uint64_t own = atomic_load(&space.own), kept = atomic_load(&space.kept);
    return left_for(SPACE_NEEDED, above(own, bytes), kept, bytes + passing);
}

bool space_take(size_t bytes, space_use use) {
    if (use == SPACE_ASKED) {
        atomic_fetch_add(&space.asked, bytes);
        return true;
    }
    /* Counted first, so that two threads can't both get the last of it. */
    const uint64_t own = atomic_fetch_add(&space.own, bytes);
    const uint64_t kept = is_kept(use) ? atomic_fetch_add(&space.kept, bytes) : 0;
    if (bytes <= left_for(use, own, kept, 0)) return true;
    space_give(bytes, use);
    return false;
}

void space_give(size_t bytes, space_use use) {
    atomic_fetch_sub(use == SPACE_ASKED ? &space.asked : &space.own, bytes);
    if (is_kept(use)) atomic_fetch_sub(&space.kept, bytes);
}

void *space_reserve(size_t bytes, size_t alignment, space_use use) {
    if (!space_take(bytes, use)) return NULL;
    void *address = alignment ? os_reserve_aligned(bytes, alignment) : os_reserve(bytes);
    if (!address) space_give(bytes, use);
    return address;
}

void space_return(void *address, size_t bytes, space_use use) {
    os_unreserve(address, bytes);
    space_give(bytes, use);
}

void vrange_address_space_read(vrange_address_space *out) {
    const uint64_t limit = os_address_space_limit();
    uint64_t used = 0, data = 0;
    if (os_address_space(&used, &data) < 0) used = 0;
    *out = (vrange_address_space){
        .limit_bytes = limit,
        .budget_bytes = space_budget(),
        .own_bytes = atomic_load(&space.own),
        .asked_bytes = atomic_load(&space.asked),
        .left_bytes = above(lesser(limit, os_address_space_bytes()), used)};
}
