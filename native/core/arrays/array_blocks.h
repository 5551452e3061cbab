/* The blocks of an array, and the state of each. */
#ifndef VRANGE_ARRAY_BLOCKS_H
#define VRANGE_ARRAY_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "arrays/array_state.h"

#define BLOCK_BUSY 0x80000000u
#define BLOCK_FILLING 0x40000000u

static inline char *array_block(vrange_array *array, size_t block) {
    return array->base + block * array->block_bytes;
}

static inline size_t whole_blocks_bytes(vrange_array *array, size_t first, size_t count) {
    size_t bytes = count * array->block_bytes, left = array->mapped_bytes - first * array->block_bytes;
    return bytes < left ? bytes : left;
}

/* Whether every pin of the block belongs to a caller that has not yet found all of it present. */
static inline bool is_filling(vrange_array *array, size_t block) {
    return atomic_load(&array->pins[block]) & BLOCK_FILLING;
}

/* On failure, `pins` holds the value that prevented it. */
static inline bool take_block(vrange_array *array, size_t block, uint32_t *pins) {
    *pins = 0;
    return atomic_compare_exchange_strong(&array->pins[block], pins, BLOCK_BUSY);
}

static inline void give_blocks(vrange_array *array, size_t first, size_t count) {
    for (size_t i = 0; i < count; i++) atomic_fetch_and(&array->pins[first + i], ~BLOCK_BUSY);
}

#endif
