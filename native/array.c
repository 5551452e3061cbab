/* Volatile arrays: content that is never pinned as a whole, and grows back where it is touched.
 *
 * An array is a span of address space cut into blocks. A lost block raises SIGBUS when it is touched
 * (refault.c), and is put back by the array's regenerator. What was put back is volatile again
 * without anybody's doing: it is noted in a bitmap, and the thread of the reserve tells the kernel of
 * it in long runs, and once more at its next look: of a page that another processor has just got,
 * and still has in a batch on the way to its lists, the kernel takes no notice. Whoever fills faster
 * than the thread can look tells the kernel himself, every OFFER_BYTES, so that filling never depends
 * on the thread being awake.
 *
 * A block that is pinned is never told of. The word that counts its pins is also what excludes the
 * two: BUSY while the kernel is being told, and only taken where there are no pins. */
#include "array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fork.h"
#include "os.h"
#include "refault.h"
#include "reserve.h"
#include "rung.h"
#include "scratch.h"

#define ARRAYS_MOST 1024
#define BLOCK_BUSY 0x80000000u
#define BLOCK_BYTES_MOST (2u << 20)
#define OFFER_BYTES (4u << 20)
#define AHEAD_BYTES_MOST SCRATCH_BYTES
#define NO_MEMORY_TRIES 200

/* The handler looks here. What it may read of an array that is just being closed is here too, and
 * `readers` keeps the rest: a place is emptied first, and the array goes when nobody looks any more. */
static struct place {
    vrange_array *_Atomic array;
    _Atomic uintptr_t base;
    _Atomic size_t bytes;
    _Atomic uint32_t readers;
} places[ARRAYS_MOST];
static _Atomic uint32_t places_end;

static _Atomic uint64_t filled_bytes_in_all;

static void *_Atomic empty_page; /* never touched */

bool arrays_exist(void) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        if (atomic_load(&places[i].array)) return true;
    }
    return false;
}

/* NULL, or an array that stays until stop_reading(). */
static vrange_array *start_reading(struct place *place) {
    if (!atomic_load(&place->array)) return NULL;
    atomic_fetch_add(&place->readers, 1);
    vrange_array *array = atomic_load(&place->array);
    if (!array) atomic_fetch_sub(&place->readers, 1);
    return array;
}

static void stop_reading(struct place *place) { atomic_fetch_sub(&place->readers, 1); }

vrange_array *array_at(const void *address) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        /* A hint: these may be of two arrays, where one is closed and another one opened. */
        if ((uintptr_t)address - atomic_load(&places[i].base) >= atomic_load(&places[i].bytes)) continue;
        vrange_array *array = start_reading(&places[i]);
        if (!array) continue;
        bool inside = (size_t)((const char *)address - array->base) < array->mapped_bytes;
        stop_reading(&places[i]);
        if (inside) return array; /* it stays: who touches an array has a view of it */
    }
    return NULL;
}

static int add_array(vrange_array *array) {
    for (uint32_t i = 0; i < ARRAYS_MOST; i++) {
        vrange_array *expected = NULL;
        if (!atomic_compare_exchange_strong(&places[i].array, &expected, array)) continue;
        atomic_store(&places[i].base, (uintptr_t)array->base);
        atomic_store(&places[i].bytes, array->mapped_bytes);
        uint32_t end = atomic_load(&places_end);
        while (end < i + 1 && !atomic_compare_exchange_weak(&places_end, &end, i + 1)) {
        }
        return 0;
    }
    return -EMFILE;
}

static void remove_array(vrange_array *array) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        if (atomic_load(&places[i].array) != array) continue;
        atomic_store(&places[i].bytes, 0);
        atomic_store(&places[i].array, NULL);
        while (atomic_load(&places[i].readers)) os_yield();
        return;
    }
}

/* ---- telling the kernel ----------------------------------------------------------------------- */

static char *block_address(vrange_array *array, size_t block) {
    return array->base + block * array->block_bytes;
}

static size_t whole_blocks_bytes(vrange_array *array, size_t first, size_t count) {
    size_t bytes = count * array->block_bytes, left = array->mapped_bytes - first * array->block_bytes;
    return bytes < left ? bytes : left;
}

/* Where it fails, `pins` is what kept it from being taken. */
static bool take_block(vrange_array *array, size_t block, uint32_t *pins) {
    *pins = 0;
    return atomic_compare_exchange_strong(&array->pins[block], pins, BLOCK_BUSY);
}

static void give_blocks(vrange_array *array, size_t first, size_t count) {
    for (size_t i = 0; i < count; i++) atomic_fetch_and(&array->pins[first + i], ~BLOCK_BUSY);
}

static void note_word(vrange_array *array, size_t word) {
    atomic_fetch_or(&array->filled_map[word / 64], 1ull << word % 64);
}

static void note_filled(vrange_array *array, size_t first, size_t count) {
    for (size_t block = first; block < first + count; block++) {
        atomic_fetch_or(&array->filled[block / 64], 1ull << block % 64);
        note_word(array, block / 64);
    }
    atomic_fetch_add(&array->filled_bytes, count * array->block_bytes);
    atomic_fetch_add(&filled_bytes_in_all, count * array->block_bytes);
}

static void offer_word(vrange_array *array, size_t word) {
    const uint64_t fresh = atomic_exchange(&array->filled[word], 0);
    uint64_t bits = fresh | atomic_exchange(&array->offered[word], 0);
    if (fresh) {
        atomic_fetch_or(&array->offered[word], fresh);
        note_word(array, word);
        atomic_fetch_add(&array->filled_bytes, 1); /* something is left to be done */
        atomic_fetch_add(&filled_bytes_in_all, 1);
    }
    while (bits) {
        size_t bit = (size_t)__builtin_ctzll(bits);
        size_t first = word * 64 + bit, count = 0;
        uint32_t pins = 0;
        while (bit + count < 64 && bits >> (bit + count) & 1 &&
               take_block(array, first + count, &pins))
            count++;
        if (count) {
            os_lazyfree(block_address(array, first), whole_blocks_bytes(array, first, count));
            give_blocks(array, first, count);
        } else {
            count = 1; /* pinned: it is noted again when the last pin goes */
            /* Or just being told of, perhaps before this filling: it has to be told again. */
            if (pins & BLOCK_BUSY) note_filled(array, first, 1);
        }
        bits &= bit + count < 64 ? ~0ull << (bit + count) : 0;
    }
}

static void offer_filled(vrange_array *array) {
    const uint64_t noted = atomic_exchange(&array->filled_bytes, 0);
    if (noted == 0) return;
    atomic_fetch_sub(&filled_bytes_in_all, noted);
    const size_t words = (array->blocks + 63) / 64;
    for (size_t group = 0; group * 64 < words; group++) {
        uint64_t bits = atomic_exchange(&array->filled_map[group], 0);
        for (; bits; bits &= bits - 1)
            offer_word(array, group * 64 + (size_t)__builtin_ctzll(bits));
    }
}

void arrays_offer(void) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        vrange_array *array = start_reading(&places[i]);
        if (!array) continue;
        offer_filled(array);
        stop_reading(&places[i]);
    }
}

/* ---- filling ---------------------------------------------------------------------------------- */

/* Whether blocks are what one huge page holds. They then come as one: it is offered, taken and read
 * at a fraction of what 512 small ones cost. */
static bool fill_huge_page(vrange_array *array, size_t first, size_t count) {
    return whole_blocks_bytes(array, first, count) == OS_HUGE_BYTES &&
           (uintptr_t)block_address(array, first) % OS_HUGE_BYTES == 0;
}

/* 0; EBUSY where a block is pinned or just being told of, with the content as it was; or EAGAIN, where
 * the content has to be made again: somebody put a page there, so the kernel moved small ones, up to
 * that one. What it moved may be lost again by now, and its place in the content reads as zeros. */
static int move_huge_page(vrange_array *array, size_t first, size_t count, char *content) {
    size_t taken = 0;
    uint32_t pins;
    while (taken < count && take_block(array, first + taken, &pins)) taken++;
    int result = EBUSY;
    if (taken == count) {
        /* The touch has left an empty page table, and into one a huge page would go in 512 pieces.
         * This frees it (Linux 6.13), with what others may have put there: it grows back. */
        char *to = block_address(array, first);
        result = os_discard(to, OS_HUGE_BYTES);
        if (result == 0) result = os_userfault_move_huge(rung_userfault(), to, content);
        if (result != 0) result = EAGAIN;
    }
    give_blocks(array, first, taken);
    if (result == 0) os_list_new_pages(atomic_load(&empty_page));
    return result;
}

/* Content of `count` blocks, put together in scratch, to where it is missing. */
static int map_content(vrange_array *array, size_t first, size_t count, char *content, bool huge) {
    const size_t bytes = whole_blocks_bytes(array, first, count);
    const size_t known = array->bytes - first * array->block_bytes;
    if (known < bytes) memset(content + known, 0, bytes - known); /* the rest of the last page */
    if (huge) {
        int result = move_huge_page(array, first, count, content);
        if (result != EBUSY) return result;
    }
    for (int tries = 0;; tries++) {
        int result = os_userfault_copy_missing(rung_userfault(), block_address(array, first), content,
                                               bytes);
        if (result == 0) os_list_new_pages(atomic_load(&empty_page));
        if (result != -ENOMEM || tries == NO_MEMORY_TRIES) return -result;
        /* Our own filled blocks may be what there is too much of. */
        arrays_offer();
        os_sleep_ns(1000000);
    }
}

static int regenerate_into(vrange_array *array, size_t first, size_t count, char *huge) {
    const size_t offset = first * array->block_bytes;
    size_t bytes = count * array->block_bytes;
    if (bytes > array->bytes - offset) bytes = array->bytes - offset;
    char *content = huge ? huge : scratch_take();
    int result = array->regenerate(content, offset, bytes, array->context);
    if (result < 0) result = EIO; /* a C function's own idea of failing */
    if (result == 0) result = map_content(array, first, count, content, huge);
    if (!huge) scratch_give(content);
    if (result == 0) atomic_fetch_add(&array->refilled_bytes, bytes);
    return result;
}

static int regenerate_blocks(vrange_array *array, size_t first, size_t count) {
    char *huge = fill_huge_page(array, first, count) ? scratch_take_huge() : NULL;
    int result = EAGAIN;
    if (huge) {
        result = regenerate_into(array, first, count, huge);
        scratch_give_huge(huge);
    }
    return result == EAGAIN ? regenerate_into(array, first, count, NULL) : result;
}

/* How many blocks to fill from `block` on: one, or twice as many each time as a sequence goes on, to
 * the end of a huge page at most. */
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
        count = 1; /* what failed may be a block that nobody asked for */
        result = regenerate_blocks(array, block, count);
    }
    if (result != 0) return result;
    atomic_fetch_add(&array->refaults, 1);
    tally(&array->account->refaults, 1);
    note_filled(array, block, count);
    if (atomic_load(&filled_bytes_in_all) >= OFFER_BYTES) arrays_offer();
    return 0;
}

/* ---- pins ------------------------------------------------------------------------------------- */

static void pin_block(vrange_array *array, size_t block) {
    for (;;) {
        uint32_t pins = atomic_load(&array->pins[block]);
        if (pins & BLOCK_BUSY) os_yield();
        else if (atomic_compare_exchange_weak(&array->pins[block], &pins, pins + 1)) return;
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
}

/* Of a pinned block, what is there is made safe. 0, EFAULT where something is missing, or an errno. */
static int secure_block(vrange_array *array, size_t block) {
    return -os_populate(block_address(array, block), whole_blocks_bytes(array, block, 1));
}

int vrange_array_pin(vrange_array *array, size_t first, size_t count, unsigned char *missing,
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
            vrange_array_unpin(array, first, block + 1 - first);
            return -result;
        }
    }
    note_huge_pages(array, first, count);
    return VRANGE_OK;
}

int vrange_array_put(vrange_array *array, size_t block, const void *content) {
    char *scratch = scratch_take();
    size_t bytes = whole_blocks_bytes(array, block, 1);
    size_t known = array->bytes - block * array->block_bytes;
    memcpy(scratch, content, known < bytes ? known : bytes);
    int result;
    do {
        result = map_content(array, block, 1, scratch, false);
        if (result == 0) result = secure_block(array, block);
    } while (result == EFAULT);
    scratch_give(scratch);
    if (result == 0) atomic_fetch_add(&array->refilled_bytes, bytes);
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
    atomic_fetch_sub(&filled_bytes_in_all, atomic_load(&array->filled_bytes));
    unmap(array->base, array->mapped_bytes);
    unmap((void *)array->pins, array->blocks * sizeof *array->pins);
    unmap((void *)array->filled, words * sizeof *array->filled);
    unmap((void *)array->offered, words * sizeof *array->offered);
    unmap((void *)array->filled_map, (words + 63) / 64 * sizeof *array->filled_map);
    free(array);
}

static int prepare_empty_page(void) {
    if (atomic_load(&empty_page)) return 0;
    void *fresh = os_reserve(os_page_bytes()), *expected = NULL;
    if (!fresh) return -ENOMEM;
    if (!atomic_compare_exchange_strong(&empty_page, &expected, fresh))
        os_unreserve(fresh, os_page_bytes());
    return 0;
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
    int result = scratch_prepare();
    if (result == 0) result = prepare_empty_page();
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
    reserve_ensure();
    int result = map_array(array);
    if (result == 0) result = add_array(array);
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
    remove_array(array);
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
    char *address = block_address(array, first);
    const size_t bytes = whole_blocks_bytes(array, first, count);
    int result = os_lazyfree(address, bytes);
    if (result == 0) result = os_pageout(address, bytes);
    /* What another processor still has in a batch of its own the kernel passes over. */
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
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        vrange_array *array = atomic_load(&places[i].array);
        if (!array) continue;
        int result = os_userfault_register(userfault, array->base, array->mapped_bytes);
        /* Zeros may stand where something was lost and then touched. */
        if (result == 0) result = discard_unpinned(array);
        if (result < 0) return result;
    }
    return 0;
}

int arrays_register_again(int userfault) {
    if (userfault < 0) return 0;
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        atomic_store(&places[i].readers, 0); /* whoever was reading does not exist here */
        vrange_array *array = atomic_load(&places[i].array);
        if (!array) continue;
        /* Nor does whoever was just advising the kernel, from a handler. Only looked at as a rule: of
         * a large array, writing would give the child a copy of all the pins. */
        for (size_t block = 0; block < array->blocks; block++) {
            if (atomic_load(&array->pins[block]) & BLOCK_BUSY) give_blocks(array, block, 1);
        }
        int result = os_userfault_register(userfault, array->base, array->mapped_bytes);
        if (result < 0) return result;
    }
    return 0;
}
