#ifndef VRANGE_ARRAY_FILL_H
#define VRANGE_ARRAY_FILL_H

#include "arrays/array_state.h"

/* What filling needs is reserved ahead. */
int prepare_filling(void);
/* Content of blocks by the array's regenerator, to where it is missing. 0 or an errno. */
int regenerate_blocks(vrange_array *array, size_t first, size_t count);
/* The same of one block, from `content`. */
int put_block(vrange_array *array, size_t block, const void *content);


/* Puts back the block that `address` is in, and those read ahead. 0 or an errno. Safe in a signal
 * handler, as far as its regenerator is. */
int array_refill(vrange_array *array, const void *address);

#endif
