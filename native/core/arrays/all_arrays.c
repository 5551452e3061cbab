/* What mending, fork and the reserve do to all arrays of the process; see all_arrays.h. */
#include "arrays/all_arrays.h"

#include "arrays/array_blocks.h"
#include "arrays/array_discard.h"
#include "arrays/array_offer.h"
#include "arrays/array_places.h"
#include "base/inherit.h"
#include "base/rung.h"
#include "os/os.h"

int arrays_register(int userfault) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        result = os_userfault_register(userfault, array->base, array->mapped_bytes);
        place_leave(i);
    }
    return result;
}

void arrays_return(void) {
    if (vrange_rung() != VRANGE_RUNG_REFAULT) return;
    for (uint32_t i = 0; i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        discard_unpinned(array);
        place_leave(i);
    }
}

void arrays_forget_content(void) {
    for (uint32_t i = 0; i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        /* Zeros may be in blocks that were lost and then touched. */
        discard_unpinned(array);
        for (size_t block = 0; block < array->blocks; block++) {
            if (is_filling(array, block))
                os_discard(array_block(array, block), whole_blocks_bytes(array, block, 1));
        }
        place_leave(i);
    }
}

void arrays_bar(void) {
    for (uint32_t i = 0; i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        for (size_t block = 0; block < array->blocks; block++) {
            const uint32_t pins = atomic_load(&array->pins[block]) & ~BLOCK_BUSY;
            if (pins == 0 || pins & BLOCK_FILLING)
                os_protect(array_block(array, block), whole_blocks_bytes(array, block, 1));
        }
        place_leave(i);
    }
}

/* ---- fork ------------------------------------------------------------------------------------- */

/* Does not count the pins of threads that have not found all of the block present: the child has no such
 * threads. */
static bool is_pinned(vrange_array *array, size_t block) {
    const uint32_t pins = atomic_load(&array->pins[block]) & ~BLOCK_BUSY;
    return pins && !(pins & BLOCK_FILLING);
}

/* The number of blocks from `first` on that are all pinned, or all not pinned. */
static size_t count_alike(vrange_array *array, size_t first) {
    const bool pinned = is_pinned(array, first);
    size_t end = first + 1;
    while (end < array->blocks && is_pinned(array, end) == pinned) end++;
    return end - first;
}

void arrays_before_fork(void) {
    for (uint32_t i = 0; i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        /* A touch can't refill an array without a regenerator, so the child inherits what is present. */
        if (array->regenerate) {
            inherit_area(array->base, array->mapped_bytes);
            const size_t end = atomic_load(&array->pinned) ? array->blocks : 0;
            for (size_t block = 0, count; block < end; block += count) {
                count = count_alike(array, block);
                if (is_pinned(array, block))
                    inherit_keep(array_block(array, block), whole_blocks_bytes(array, block, count), 0);
            }
        }
        place_leave(i);
    }
}

int arrays_register_again(int userfault) {
    places_forget_readers();
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        /* A thread that was advising the kernel, from a handler, does not exist in the child. Usually this
         * only reads: for a large array, writing would give the child a copy of all the pins. */
        for (size_t block = 0; block < array->blocks; block++) {
            if (atomic_load(&array->pins[block]) & BLOCK_BUSY) give_blocks(array, block, 1);
        }
        if (userfault >= 0)
            result = os_userfault_register(userfault, array->base, array->mapped_bytes);
        place_leave(i);
    }
    if (userfault < 0) arrays_bar();
    return result;
}
