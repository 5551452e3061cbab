/* Refills lost blocks: their content is made in scratch memory and then mapped where it is missing.
 *
 * Sequential access is read ahead. Content that fills a whole huge page is moved in as one, if the machine
 * has huge pages. All of this runs in the SIGBUS handler too. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "arrays/array_fill.h"
#include "arrays/array_offer.h"
#include "arrays/array_blocks.h"
#include "os/os.h"
#include "base/rung.h"
#include "base/scratch.h"

#define AHEAD_BYTES_MOST SCRATCH_BYTES
#define NO_MEMORY_TRIES 200

static void *_Atomic empty_page; /* never touched */

static int prepare_empty_page(void) {
    if (atomic_load(&empty_page)) return 0;
    void *fresh = os_reserve(os_page_bytes()), *expected = NULL;
    if (!fresh) return -ENOMEM;
    if (!atomic_compare_exchange_strong(&empty_page, &expected, fresh))
        os_unreserve(fresh, os_page_bytes());
    return 0;
}

int prepare_filling(void) {
    int result = scratch_prepare();
    return result == 0 ? prepare_empty_page() : result;
}

/* Whether the blocks are exactly one huge page. They are then moved in as one: offering, reclaiming and
 * reading it costs a fraction of what 512 small pages cost. */
static bool fill_huge_page(vrange_array *array, size_t first, size_t count) {
    return whole_blocks_bytes(array, first, count) == OS_HUGE_BYTES &&
           (uintptr_t)array_block(array, first) % OS_HUGE_BYTES == 0;
}

/* Returns 0; EBUSY if a block is pinned or just being offered, with the content unchanged; or EAGAIN if
 * the content has to be made again. EAGAIN means that another thread put a page there, so the kernel moved
 * small pages, up to that one. What it moved may be lost again by now, and its place in the content reads
 * as zeros. */
static int move_huge_page(vrange_array *array, size_t first, size_t count, char *content) {
    size_t taken = 0;
    uint32_t pins;
    while (taken < count && take_block(array, first + taken, &pins)) taken++;
    int result = EBUSY;
    if (taken == count) {
        /* The touch has left an empty page table, and there a huge page would be moved in 512 pieces. This
         * frees the page table (Linux 6.13), with any page that other threads have put there: it is
         * refilled when touched. */
        char *to = array_block(array, first);
        result = os_discard(to, OS_HUGE_BYTES);
        if (result == 0) result = os_userfault_move_huge(rung_userfault(), to, content);
        if (result != 0) result = EAGAIN;
    }
    give_blocks(array, first, taken);
    if (result == 0) os_list_new_pages(atomic_load(&empty_page));
    return result;
}

/* Maps the content of `count` blocks, made in scratch, where it is missing. */
static int map_content(vrange_array *array, size_t first, size_t count, char *content, bool huge) {
    const size_t bytes = whole_blocks_bytes(array, first, count);
    const size_t known = array->bytes - first * array->block_bytes;
    if (known < bytes) memset(content + known, 0, bytes - known); /* the rest of the last page */
    if (huge) {
        int result = move_huge_page(array, first, count, content);
        if (result != EBUSY) return result;
    }
    for (int tries = 0;; tries++) {
        int result = os_userfault_copy_missing(rung_userfault(), array_block(array, first), content,
                                               bytes);
        if (result == 0) os_list_new_pages(atomic_load(&empty_page));
        if (result != -ENOMEM || tries == NO_MEMORY_TRIES) return -result;
        /* Our own filled blocks may be what uses up the memory. */
        arrays_offer();
        os_sleep_ns(1000000);
    }
}

static int regenerate_into(vrange_array *array, size_t first, size_t count, char *huge) {
    const size_t offset = first * array->block_bytes;
    size_t bytes = count * array->block_bytes;
    if (bytes > array->bytes - offset) bytes = array->bytes - offset;
    char *content = huge ? huge : scratch_take();
    if (!content) return ENOMEM;
    int result = array->regenerate(content, offset, bytes, array->context);
    if (result < 0) result = EIO; /* a C function may report failure by any negative number */
    if (result == 0) result = map_content(array, first, count, content, huge);
    if (!huge) scratch_give(content);
    if (result == 0) atomic_fetch_add(&array->refilled_bytes, bytes);
    return result;
}

int regenerate_blocks(vrange_array *array, size_t first, size_t count) {
    char *huge = fill_huge_page(array, first, count) ? scratch_take_huge() : NULL;
    int result = EAGAIN;
    if (huge) {
        result = regenerate_into(array, first, count, huge);
        scratch_give_huge(huge);
    }
    return result == EAGAIN ? regenerate_into(array, first, count, NULL) : result;
}

int put_block(vrange_array *array, size_t block, const void *content) {
    char *scratch = scratch_take();
    if (!scratch) return ENOMEM;
    size_t bytes = whole_blocks_bytes(array, block, 1);
    size_t known = array->bytes - block * array->block_bytes;
    memcpy(scratch, content, known < bytes ? known : bytes);
    int result = map_content(array, block, 1, scratch, false);
    scratch_give(scratch);
    return result;
}

/* How many blocks to fill from `block` on: one, or twice as many each time a sequence continues, up to the
 * end of a huge page. */
static size_t blocks_ahead(vrange_array *array, size_t block) {
    size_t most = AHEAD_BYTES_MOST / array->block_bytes;
    most -= block % most;
    if (most > array->blocks - block) most = array->blocks - block;
    for (int i = 0; i < STREAMS; i++) {
        uint64_t expected = block;
        if (atomic_load_explicit(&array->streams[i].next, memory_order_relaxed) != expected) continue;
        const size_t wanted = 2 * (size_t)atomic_load(&array->streams[i].ahead);
        const size_t ahead = wanted < most ? wanted : most;
        if (!atomic_compare_exchange_strong(&array->streams[i].next, &expected, block + ahead)) continue;
        if (wanted <= AHEAD_BYTES_MOST / array->block_bytes)
            atomic_store(&array->streams[i].ahead, (uint32_t)wanted);
        return ahead;
    }
    uint32_t replaced = atomic_fetch_add(&array->stream_to_replace, 1) % STREAMS;
    atomic_store(&array->streams[replaced].next, block + 1);
    atomic_store(&array->streams[replaced].ahead, 1);
    return 1;
}

int array_refill(vrange_array *array, const void *address) {
    if (!array->regenerate) return ENOTSUP;
    size_t block = (size_t)((const char *)address - array->base) / array->block_bytes;
    size_t count = blocks_ahead(array, block);
    int result = regenerate_blocks(array, block, count);
    if (result != 0 && count > 1) {
        count = 1; /* the failing block may be one that no thread touched */
        result = regenerate_blocks(array, block, count);
    }
    if (result != 0) return result;
    atomic_fetch_add(&array->refaults, 1);
    tally(&array->account->refaults, 1);
    note_filled(array, block, count);
    offer_if_much();
    return 0;
}
