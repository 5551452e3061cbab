/* Pins blocks of an array, and fills those that are missing.
 *
 * A pinned block is never offered. The word that counts a block's pins also excludes pinning and offering
 * from each other: the block is BUSY while the kernel is being advised, and it becomes BUSY only if it has
 * no pins. */
#include <errno.h>

#include "arrays/array_blocks.h"
#include "arrays/array_fill.h"
#include "arrays/array_offer.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "base/rung.h"
#include "base/userfault_closed.h"
#include "os/os.h"

/* How often a block is filled again because a page of it is missing. Under pressure a few rounds are
 * needed. If MADV_POPULATE_WRITE fails for good, more would never end. */
#define ROUNDS_MOST 1000

/* True if that was the last pin. */
static bool unpin_block(vrange_array *array, size_t block) {
    uint32_t pins = atomic_load(&array->pins[block]), left;
    do left = (pins & ~BLOCK_FILLING) == 1 ? 0 : pins - 1;
    while (!atomic_compare_exchange_weak(&array->pins[block], &pins, left));
    return left == 0;
}

static void pin_block(vrange_array *array, size_t block) {
    for (;;) {
        uint32_t pins = atomic_load(&array->pins[block]);
        const uint32_t pinned = pins ? pins + 1 : BLOCK_FILLING | 1;
        if (pins & BLOCK_BUSY) {
            if (gate_is_wiped()) gate_wait(); /* the thread that offers it exists only in the parent */
            os_yield();
        } else if (atomic_compare_exchange_weak(&array->pins[block], &pins, pinned)) {
            if (!gate_is_closed()) return;
            /* The fork may not have seen this pin, and its child would not have the block. */
            unpin_block(array, block);
            gate_wait();
        }
    }
}

/* A pin dirties all of a huge page. So the unpinned blocks of that huge page have to be offered again. */
static void note_huge_pages(vrange_array *array, size_t first, size_t count) {
    const size_t span = OS_HUGE_BYTES / array->block_bytes;
    const size_t begin = first - first % span;
    size_t end = (first + count + span - 1) / span * span;
    if (end > array->blocks) end = array->blocks;
    note_filled(array, begin, end - begin);
}

void vrange_array_unpin(vrange_array *array, size_t first, size_t count) {
    bool volatile_again = false;
    for (size_t block = first; block < first + count; block++) {
        if (unpin_block(array, block)) volatile_again = true;
    }
    if (volatile_again) note_huge_pages(array, first, count);
    atomic_fetch_sub(&array->pinned, count);
}

/* Secures the present pages of a pinned block. Returns 0; EFAULT if a page is missing; EAGAIN if missing
 * pages can't be detected; or another errno. Finding a page present counts only if a missing page would
 * have been detected: so the gate keeps mending out until that is checked, too. */
static int secure_block(vrange_array *array, size_t block) {
    gate_enter();
    int result = -os_populate(array_block(array, block), whole_blocks_bytes(array, block, 1));
    if (!rung_holds()) {
        mend();
        result = EAGAIN;
    } else if (is_filling(array, block) && vrange_rung() != VRANGE_RUNG_REFAULT) {
        result = EOPNOTSUPP; /* the rung was lost at run time, and with it all that was not pinned */
    } else if (result == 0) {
        atomic_fetch_and(&array->pins[block], ~BLOCK_FILLING);
    }
    gate_leave();
    return result;
}

/* Like regenerate, this fails while everything is being registered with a new userfaultfd. */
static bool may_be_tried_again(uint64_t mends) {
    gate_enter();
    if (!rung_holds()) mend();
    gate_leave();
    return rung_mends() != mends;
}

static int fill_block(vrange_array *array, size_t block) {
    if (!array->regenerate) return ENOTSUP;
    uint64_t mends;
    int result;
    do {
        mends = rung_mends();
        result = regenerate_blocks(array, block, 1);
    } while (result != 0 && may_be_tried_again(mends));
    return result;
}

static int pin_blocks(vrange_array *array, size_t first, size_t count, unsigned char *missing,
                      size_t *failed) {
    int result = 0;
    for (size_t block = first; block < first + count; block++) {
        pin_block(array, block);
        result = secure_block(array, block);
        /* Two rounds: a page that was present when the others were filled may have gone since. */
        int rounds = 0;
        while (result == EAGAIN || (result == EFAULT && !missing)) {
            if (result == EFAULT && rounds++ == ROUNDS_MOST) break;
            if (result == EFAULT) result = fill_block(array, block);
            else result = 0;
            if (result == 0) result = secure_block(array, block);
            else break;
        }
        if (missing) {
            missing[block - first] = result == EFAULT;
            if (result == EFAULT) result = 0;
        }
        if (result != 0) {
            *failed = block;
            atomic_fetch_sub(&array->pinned, first + count - block - 1);
            vrange_array_unpin(array, first, block + 1 - first);
            return -result;
        }
    }
    note_huge_pages(array, first, count);
    return VRANGE_OK;
}

int vrange_array_pin(vrange_array *array, size_t first, size_t count, unsigned char *missing,
                     size_t *failed) {
    if (!caretaker_is_running()) {
        gate_enter();
        caretaker_ensure(); /* in the child of a fork there may be no caretaker yet */
        gate_leave();
    }
    /* Before the pins: a fork that misses this count still sees each pin. */
    atomic_fetch_add(&array->pinned, count);
    return pin_blocks(array, first, count, missing, failed);
}

int vrange_array_put(vrange_array *array, size_t block, const void *content) {
    int result, rounds = 0;
    uint64_t mends;
    do {
        mends = rung_mends();
        result = put_block(array, block, content);
        if (result == 0) result = secure_block(array, block);
        else if (may_be_tried_again(mends)) result = EAGAIN;
    } while (result == EAGAIN || (result == EFAULT && rounds++ < ROUNDS_MOST));
    if (result == 0)
        atomic_fetch_add(&array->refilled_bytes, whole_blocks_bytes(array, block, 1));
    return -result;
}
