/* Volatile arrays: their content is never pinned as a whole, and is refilled where it is touched.
 *
 * An array is a span of address space that is cut into blocks. Touching a lost block raises SIGBUS
 * (sigbus.c), and the array's regenerator refills it (array_fill.c). A refilled block becomes volatile
 * again by itself (array_offer.c).
 *
 * A pinned block is never offered. The word that counts a block's pins also excludes pinning and offering
 * from each other: the block is BUSY while the kernel is being advised, and it becomes BUSY only if it has
 * no pins. */
#include "arrays/array.h"

#include <errno.h>
#include <stdlib.h>

#include "arrays/array_blocks.h"
#include "arrays/array_fill.h"
#include "arrays/array_offer.h"
#include "arrays/array_places.h"
#include "base/space_budget.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "base/inherit.h"
#include "base/userfault_closed.h"
#include "os/os.h"
#include "arrays/sigbus.h"
#include "base/rung.h"

_Static_assert(VRANGE_BLOCK_BYTES_MOST == OS_HUGE_BYTES, "a block is filled as one huge page at most");

/* How often a block is filled again because a page of it is missing. Under pressure a few rounds are
 * needed. If MADV_POPULATE_WRITE fails for good, more would never end. */
#define ROUNDS_MOST 1000

/* ---- pins ------------------------------------------------------------------------------------- */

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
        if (pins & BLOCK_BUSY) os_yield();
        else if (atomic_compare_exchange_weak(&array->pins[block], &pins, pinned)) {
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

/* Whether every pin of the block belongs to a caller that has not yet found all of it present. */
static bool is_filling(vrange_array *array, size_t block) {
    return atomic_load(&array->pins[block]) & BLOCK_FILLING;
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

/* ---- creating and closing arrays -------------------------------------------------------------- */

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
    caretaker_ensure();
    int result = map_array(array);
    if (result == 0) result = register_array(array);
    if (result == 0) result = place_add(array);
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

static int discard_run(vrange_array *array, size_t first, size_t count) {
    char *address = array_block(array, first);
    const size_t bytes = whole_blocks_bytes(array, first, count);
    int result = os_lazyfree(address, bytes);
    if (result == 0) result = os_pageout(address, bytes);
    /* The kernel skips pages that another processor still has in a batch of its own. */
    if (result == 0) result = os_discard(address, bytes);
    give_blocks(array, first, count);
    return result;
}

static int discard_unpinned(vrange_array *array) {
    const size_t run_most = (64u << 20) / array->block_bytes;
    int worst = 0;
    for (size_t block = 0; block < array->blocks;) {
        size_t count = 0;
        uint32_t pins = 0;
        while (count < run_most && block + count < array->blocks &&
               take_block(array, block + count, &pins))
            count++;
        if (count) {
            int result = discard_run(array, block, count);
            if (result < 0) worst = result;
        }
        if (count) block += count;
        else if (pins & BLOCK_BUSY) os_yield(); /* the block is just being offered */
        else block++;
    }
    return worst;
}

int vrange_array_discard(vrange_array *array) {
    gate_enter();
    int result = discard_unpinned(array);
    gate_leave();
    return result;
}

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
