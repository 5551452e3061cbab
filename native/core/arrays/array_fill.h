/* Refills lost blocks of arrays, for a pin and in the SIGBUS handler. */
#ifndef VRANGE_ARRAY_FILL_H
#define VRANGE_ARRAY_FILL_H

#include "arrays/array_state.h"

/* Reserves in advance what filling needs. */
int prepare_filling(void);
/* Puts content from the array's regenerator where blocks are missing. 0 or an errno. */
int regenerate_blocks(vrange_array *array, size_t first, size_t count);
/* The same for one block, from `content`. */
int put_block(vrange_array *array, size_t block, const void *content);

/* Refills the block that contains `address`, and the blocks that are read ahead. 0 or an errno. As safe in
 * a signal handler as the array's regenerator. */
int array_refill(vrange_array *array, const void *address);

#endif
