/* The blocks of an array, and what is known of each: between array.c and the files array_*.c. */
#ifndef VRANGE_ARRAY_BLOCKS_H
#define VRANGE_ARRAY_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "arrays/array.h"

#define BLOCK_BUSY 0x80000000u
#define BLOCK_FILLING 0x40000000u

static inline char *array_block(vrange_array *array, size_t block) {
    return array->base + block * array->block_bytes;
}

static inline size_t whole_blocks_bytes(vrange_array *array, size_t first, size_t count) {
    size_t bytes = count * array->block_bytes, left = array->mapped_bytes - first * array->block_bytes;
    return bytes < left ? bytes : left;
}

/* Where it fails, `pins` is what kept it from being taken. */
static inline bool take_block(vrange_array *array, size_t block, uint32_t *pins) {
    *pins = 0;
    return atomic_compare_exchange_strong(&array->pins[block], pins, BLOCK_BUSY);
}

static inline void give_blocks(vrange_array *array, size_t first, size_t count) {
    for (size_t i = 0; i < count; i++) atomic_fetch_and(&array->pins[first + i], ~BLOCK_BUSY);
}

/* array_offer.c: these were filled, or lost their last pin, and the kernel is to be told of them. */
void note_filled(vrange_array *array, size_t first, size_t count);
/* Tells it now where much has come together. */
void offer_if_much(void);
/* Before the array goes. */
void forget_filled(vrange_array *array);

/* array_fill.c: what filling needs is reserved ahead. */
int prepare_filling(void);
/* Content of blocks by the array's regenerator, to where it is missing. 0 or an errno. */
int regenerate_blocks(vrange_array *array, size_t first, size_t count);
/* The same of one block, from `content`. */
int put_block(vrange_array *array, size_t block, const void *content);

#endif
