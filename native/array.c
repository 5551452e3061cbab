/* Volatile arrays: content that is never pinned as a whole, and grows back where it is touched.
 *
 * An array is a span of address space cut into blocks. A lost block raises SIGBUS when it is touched
 * (refault.c), and is put back by the array's regenerator (array_fill.c). What was put back is
 * volatile again without anybody's doing (array_offer.c).
 *
 * A block that is pinned is never told of. The word that counts its pins is also what excludes the
 * two: BUSY while the kernel is being told, and only taken where there are no pins. */
#include "array.h"

#include <errno.h>
#include <stdlib.h>

#include "array_blocks.h"
#include "array_places.h"
#include "caretaker.h"
#include "gate.h"
#include "inherit.h"
#include "os.h"
#include "refault.h"
#include "rung.h"

#define BLOCK_BYTES_MOST (2u << 20)

/* ---- pins ------------------------------------------------------------------------------------- */

static void pin_block(vrange_array *array, size_t block) {
    for (;;) {
        uint32_t pins = atomic_load(&array->pins[block]);
        if (pins & BLOCK_BUSY) os_yield();
        else if (atomic_compare_exchange_weak(&array->pins[block], &pins, pins + 1)) {
            if (!gate_is_closed()) return;
            /* The fork may not have seen this pin, and its child would not have the block. */
            atomic_fetch_sub(&array->pins[block], 1);
            gate_wait();
        }
    }
}

/* A pin dirties all of a huge page, so that the kernel has to be told again of all of it that nobody
 * has pinned. */
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
        if (atomic_fetch_sub(&array->pins[block], 1) == 1) volatile_again = true;
    }
    if (volatile_again) note_huge_pages(array, first, count);
    atomic_fetch_sub(&array->pinned, count);
}

/* Of a pinned block, what is there is made safe. 0, EFAULT where something is missing, or an errno. */
static int secure_block(vrange_array *array, size_t block) {
    return -os_populate(array_block(array, block), whole_blocks_bytes(array, block, 1));
}

static int pin_blocks(vrange_array *array, size_t first, size_t count, unsigned char *missing,
                      size_t *failed) {
    int result = 0;
    for (size_t block = first; block < first + count; block++) {
        pin_block(array, block);
        result = secure_block(array, block);
        /* Two rounds: a page that was there when the others were filled may have gone since. */
        while (result == EFAULT && !missing) {
            result = array->regenerate ? regenerate_blocks(array, block, 1) : ENOTSUP;
            if (result != 0) break;
            result = secure_block(array, block);
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
        caretaker_ensure(); /* in the child of a fork there may be none yet */
        gate_leave();
    }
    /* First: a fork that misses this count is seen by each of the pins. */
    atomic_fetch_add(&array->pinned, count);
    return pin_blocks(array, first, count, missing, failed);
}

int vrange_array_put(vrange_array *array, size_t block, const void *content) {
    int result;
    do {
        result = put_block(array, block, content);
        if (result == 0) result = secure_block(array, block);
    } while (result == EFAULT);
    if (result == 0)
        atomic_fetch_add(&array->refilled_bytes, whole_blocks_bytes(array, block, 1));
    return -result;
}

/* ---- arrays themselves ------------------------------------------------------------------------ */

static void *zeroed(size_t bytes, bool *all) {
    void *memory = os_map(bytes);
    if (!memory) *all = false;
    return memory;
}

static void unmap(void *memory, size_t bytes) {
    if (memory) os_unreserve(memory, bytes);
}

static void destroy(vrange_array *array) {
    const size_t words = (array->blocks + 63) / 64;
    forget_filled(array);
    unmap(array->base, array->mapped_bytes);
    unmap((void *)array->pins, array->blocks * sizeof *array->pins);
    unmap((void *)array->filled, words * sizeof *array->filled);
    unmap((void *)array->offered, words * sizeof *array->offered);
    unmap((void *)array->filled_map, (words + 63) / 64 * sizeof *array->filled_map);
    free(array);
}

static int map_array(vrange_array *array) {
    const size_t words = (array->blocks + 63) / 64;
    bool all = true;
    array->base = array->mapped_bytes < OS_HUGE_BYTES
                      ? os_reserve(array->mapped_bytes)
                      : os_reserve_aligned(array->mapped_bytes, OS_HUGE_BYTES);
    array->pins = zeroed(array->blocks * sizeof *array->pins, &all);
    array->filled = zeroed(words * sizeof *array->filled, &all);
    array->offered = zeroed(words * sizeof *array->offered, &all);
    array->filled_map = zeroed((words + 63) / 64 * sizeof *array->filled_map, &all);
    if (!array->base || !all) return -ENOMEM;
    int result = prepare_filling();
    if (result == 0) result = os_commit(array->base, array->mapped_bytes);
    if (result == 0)
        result = os_userfault_register(rung_userfault(), array->base, array->mapped_bytes);
    return result;
}

int vrange_array_open(size_t bytes, size_t block_bytes, vrange_regenerate regenerate, void *context,
                      vrange_account *account, vrange_array **out) {
    const size_t page = os_page_bytes();
    if (bytes == 0 || block_bytes < page || block_bytes > BLOCK_BYTES_MOST ||
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
    if (result == 0) result = place_add(array);
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
    refault_look(); /* the last one takes the handler with it */
    gate_leave();
}

void *vrange_array_address(vrange_array *array) { return array->base; }

uint64_t vrange_array_refaults(vrange_array *array) { return array->refaults; }

uint64_t vrange_array_refilled_bytes(vrange_array *array) { return array->refilled_bytes; }

size_t vrange_array_resident_bytes(vrange_array *array) {
    unsigned char seen[4096];
    const size_t page = os_page_bytes(), step = sizeof seen * page;
    size_t resident = 0;
    for (size_t from = 0; from < array->mapped_bytes; from += step) {
        size_t bytes = array->mapped_bytes - from < step ? array->mapped_bytes - from : step;
        if (os_residency(array->base + from, bytes, seen) < 0) break;
        for (size_t i = 0; i < bytes / page; i++) resident += seen[i] * page;
    }
    return resident;
}

static int discard_run(vrange_array *array, size_t first, size_t count) {
    char *address = array_block(array, first);
    const size_t bytes = whole_blocks_bytes(array, first, count);
    int result = os_lazyfree(address, bytes);
    if (result == 0) result = os_pageout(address, bytes);
    /* What another processor still has in a batch of its own the kernel passes over. */
    if (result == 0) result = os_discard(address, bytes);
    give_blocks(array, first, count);
    /* Locked memory (mlockall) can't be discarded: it stays, with the same content. */
    return result == -EINVAL ? 0 : result;
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
        else if (pins & BLOCK_BUSY) os_yield(); /* the kernel is just being told of it */
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

int arrays_mend(int userfault) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        result = os_userfault_register(userfault, array->base, array->mapped_bytes);
        /* Zeros may stand where something was lost and then touched. */
        if (result == 0) result = discard_unpinned(array);
        place_leave(i);
    }
    return result;
}

/* ---- fork ------------------------------------------------------------------------------------- */

static bool is_pinned(vrange_array *array, size_t block) {
    return atomic_load(&array->pins[block]) & ~BLOCK_BUSY;
}

/* The blocks from `first` on that are all pinned, or all not. */
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
        /* What a touch can't put back the child has to inherit while it is there. */
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

static int protect_unpinned(vrange_array *array) {
    int result = 0;
    for (size_t block = 0, count; result == 0 && block < array->blocks; block += count) {
        count = count_alike(array, block);
        if (!is_pinned(array, block))
            result = os_protect(array_block(array, block), whole_blocks_bytes(array, block, count));
    }
    return result;
}

int arrays_register_again(int userfault) {
    places_forget_readers();
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        /* Whoever was just advising the kernel, from a handler, does not exist here. Only looked at as
         * a rule: of a large array, writing would give the child a copy of all the pins. */
        for (size_t block = 0; block < array->blocks; block++) {
            if (atomic_load(&array->pins[block]) & BLOCK_BUSY) give_blocks(array, block, 1);
        }
        result = userfault < 0
                     ? protect_unpinned(array)
                     : os_userfault_register(userfault, array->base, array->mapped_bytes);
        place_leave(i);
    }
    return result;
}
