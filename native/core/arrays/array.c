/* Volatile arrays: their content is never pinned as a whole, and is refilled where it is touched.
 *
 * An array is a span of address space that is cut into blocks. Touching a lost block raises SIGBUS
 * (sigbus.c), and the array's regenerator refills it (array_fill.c). A refilled block becomes volatile
 * again by itself (array_offer.c). This file makes arrays and removes them; array_pin.c pins their blocks. */
#include <errno.h>
#include <stdlib.h>

#include "arrays/array_fill.h"
#include "arrays/array_offer.h"
#include "arrays/array_places.h"
#include "arrays/array_state.h"
#include "arrays/sigbus.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "base/rung.h"
#include "base/space_budget.h"
#include "base/userfault_closed.h"
#include "os/os.h"

_Static_assert(VRANGE_BLOCK_BYTES_MOST == OS_HUGE_BYTES, "a block is filled as one huge page at most");

static void *zeroed(size_t bytes, bool *all) {
    void *memory = os_map(bytes);
    if (memory) os_leave_out_of_dumps(memory, bytes);
    else *all = false;
    return memory;
}

static void unmap(void *memory, size_t bytes) {
    if (memory) os_unreserve(memory, bytes);
}

static void destroy(vrange_array *array) {
    const size_t words = (array->blocks + 63) / 64;
    forget_filled(array);
    if (array->base) space_return(array->base, array->mapped_bytes, SPACE_ASKED);
    unmap((void *)array->pins, array->blocks * sizeof *array->pins);
    unmap((void *)array->filled, words * sizeof *array->filled);
    unmap((void *)array->offered, words * sizeof *array->offered);
    unmap((void *)array->filled_map, (words + 63) / 64 * sizeof *array->filled_map);
    free(array);
}

static int map_array(vrange_array *array) {
    const size_t words = (array->blocks + 63) / 64;
    bool all = true;
    const size_t alignment = array->mapped_bytes < OS_HUGE_BYTES ? 0 : OS_HUGE_BYTES;
    array->base = space_reserve(array->mapped_bytes, alignment, SPACE_ASKED);
    array->pins = zeroed(array->blocks * sizeof *array->pins, &all);
    array->filled = zeroed(words * sizeof *array->filled, &all);
    array->offered = zeroed(words * sizeof *array->offered, &all);
    array->filled_map = zeroed((words + 63) / 64 * sizeof *array->filled_map, &all);
    if (!array->base || !all) return -ENOMEM;
    int result = prepare_filling();
    if (result == 0) result = os_commit(array->base, array->mapped_bytes);
    return result;
}

/* Called inside the gate. */
static int register_array(vrange_array *array) {
    for (;;) {
        const int result = os_userfault_register(rung_userfault(), array->base, array->mapped_bytes);
        if (result == 0) return 0;
        if (!rung_holds()) mend();
        else return vrange_rung() == VRANGE_RUNG_REFAULT ? result : -EOPNOTSUPP;
    }
}

int vrange_array_open(size_t bytes, size_t block_bytes, vrange_regenerate regenerate, void *context,
                      vrange_account *account, vrange_array **out) {
    const size_t page = os_page_bytes();
    if (bytes == 0 || block_bytes < page || block_bytes > VRANGE_BLOCK_BYTES_MOST ||
        block_bytes & (block_bytes - 1))
        return -EINVAL;
    if (bytes > SIZE_MAX / 2) return -ENOMEM;
    if (vrange_rung() != VRANGE_RUNG_REFAULT) return -EOPNOTSUPP;
    vrange_array *array = calloc(1, sizeof *array);
    if (!array) return -ENOMEM;
    array->bytes = bytes;
    array->mapped_bytes = (bytes + page - 1) / page * page;
    array->block_bytes = block_bytes;
    array->blocks = (bytes + block_bytes - 1) / block_bytes;
    array->regenerate = regenerate;
    array->context = context;
    array->account = account;
    for (int i = 0; i < STREAMS; i++) array->streams[i].next = UINT64_MAX;
    gate_enter();
    const bool is_first = !arrays_exist();
    int result = map_array(array);
    if (result == 0) result = register_array(array);
    if (result == 0) result = place_add(array);
    caretaker_ensure();
    /* A thread that found no array rests for long, and an array needs a look every tick: once other code has
     * closed the userfaultfd, what the kernel takes reads as zeros until then. */
    if (is_first) caretaker_call();
    if (!rung_holds()) mend(); /* mending did not know of the array until now */
    gate_leave();
    if (result == 0) {
        tally(&account->reserved_bytes, array->mapped_bytes);
        result = vrange_refault_arm();
        if (result == 0) {
            *out = array;
            return 0;
        }
        vrange_array_close(array);
        return result;
    }
    destroy(array);
    return result;
}

void vrange_array_close(vrange_array *array) {
    gate_enter();
    place_remove(array);
    untally(&array->account->reserved_bytes, array->mapped_bytes);
    destroy(array);
    sigbus_look(); /* the last array removes the handler with it */
    gate_leave();
}

void *vrange_array_address(vrange_array *array) { return array->base; }

uint64_t vrange_array_refaults(vrange_array *array) { return array->refaults; }

uint64_t vrange_array_refilled_bytes(vrange_array *array) { return array->refilled_bytes; }

size_t vrange_array_resident_bytes(vrange_array *array) {
    return os_count_resident(array->base, array->base + array->mapped_bytes);
}
