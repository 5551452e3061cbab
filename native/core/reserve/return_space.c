/* Returning address space; see return_space.h.
 *
 * What is reserved counts against RLIMIT_AS, used or not. Rooms of vrange reserve in steps, as they use it, and
 * keep what they have reserved. A limit that is set later may leave the program less than that. */
#include "reserve/return_space.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/amounts.h"
#include "base/gate.h"
#include "heap/heap.h"
#include "os/os.h"
#include "ranges/arena.h"
#include "stacks/stack.h"

#define BESIDE_BYTES ((size_t)1 << 20) /* that an allocator maps with a block */

static void return_inside(void) {
    heap_return_unused();
    arenas_return_unused();
    stacks_return_pooled();
}

void vrange_address_space_return(void) {
    gate_enter();
    return_inside();
    gate_leave();
}

void return_space_for(size_t bytes) {
    const uint64_t address_space = os_address_space_limit(), data = os_data_limit();
    uint64_t used, used_data;
    if (address_space == UINT64_MAX && data == UINT64_MAX) return;
    if (os_address_space(&used, &used_data) < 0) return;
    if (lesser(above(address_space, used), above(data, used_data)) >= bytes + BESIDE_BYTES)
        return;
    if (!gate_try_enter()) return; /* what serves malloc may not wait for a fork */
    return_inside();
    gate_leave();
}

bool return_space_if_changed(void) {
    static _Atomic uint64_t known_address_space = UINT64_MAX, known_data = UINT64_MAX;
    const uint64_t address_space = os_address_space_limit(), data = os_data_limit();
    const bool is_other = atomic_exchange(&known_address_space, address_space) != address_space;
    if (atomic_exchange(&known_data, data) == data && !is_other) return false;
    vrange_address_space_return();
    return true;
}

/* Belongs to the caretaker. The child of a fork has its parent's limits. */
static struct {
    bool is_known;
    uint64_t address_space, data;
} seen;

void return_space_look(void) {
    const uint64_t address_space = os_address_space_limit(), data = os_data_limit();
    const bool is_lower = seen.is_known && (address_space < seen.address_space || data < seen.data);
    seen.is_known = true;
    seen.address_space = address_space;
    seen.data = data;
    if (is_lower) return_inside();
}
