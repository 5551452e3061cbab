/* Offers to the kernel the blocks that were filled.
 *
 * A refilled block becomes volatile again by itself: a bitmap notes it. The caretaker offers such
 * blocks in long runs, and once more at its next turn, because the kernel ignores advice about a page that
 * another processor has just allocated and still has in a batch on the way to its lists. A thread that
 * fills faster than the caretaker runs offers the blocks itself, every OFFER_BYTES, so that filling
 * never depends on that thread being awake. */
#include <stdatomic.h>

#include "arrays/array_offer.h"
#include "arrays/array_blocks.h"
#include "arrays/array_places.h"
#include "os/os.h"

#define OFFER_BYTES (4u << 20)

static _Atomic uint64_t filled_bytes_in_all;

static void note_word(vrange_array *array, size_t word) {
    atomic_fetch_or(&array->filled_map[word / 64], 1ull << word % 64);
}

void note_filled(vrange_array *array, size_t first, size_t count) {
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
        atomic_fetch_add(&array->filled_bytes, 1); /* so that the next turn offers them again */
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
            os_lazyfree(array_block(array, first), whole_blocks_bytes(array, first, count));
            give_blocks(array, first, count);
        } else {
            count = 1; /* pinned: noted again when the last pin is released */
            /* Or just being offered, perhaps from before this filling: it has to be offered again. */
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
    /* The rung was lost: what the kernel takes would read as zeros. */
    if (vrange_rung() != VRANGE_RUNG_REFAULT) return;
    for (uint32_t i = 0; i < places_count(); i++) {
        vrange_array *array = place_enter(i);
        if (!array) continue;
        offer_filled(array);
        place_leave(i);
    }
}

void offer_if_much(void) {
    if (atomic_load(&filled_bytes_in_all) >= OFFER_BYTES) arrays_offer();
}

void forget_filled(vrange_array *array) {
    atomic_fetch_sub(&filled_bytes_in_all, atomic_load(&array->filled_bytes));
}
