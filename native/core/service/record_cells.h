/* Cells: memory for the records that this process publishes. */
#ifndef VRANGE_RECORD_CELLS_H
#define VRANGE_RECORD_CELLS_H

#include <stdbool.h>

#include "service/index_file.h"

_Static_assert(85u * CELL_BYTES - sizeof(index_record) == VRANGE_PAYLOAD_MOST, "the largest class has room");

/* The number of a cell that no word refers to, with room for the payload, + 1; 0: there is none. The caller
 * holds own->lock until it has published the record. */
uint32_t record_cells_take(vrange_shared *s, uint32_t payload_bytes);

/* Whether a word of the record's bucket refers to its cell. Stores where that word is, and the word. */
bool cell_is_referred_to(const vrange_shared *s, uint32_t cell, uint64_t *at, uint64_t *word);

/* Whether `bytes` from the beginning of the cell on lie within the memory of blocks that were used. */
bool cell_may_be_read(const vrange_shared *s, uint32_t cell, size_t bytes);

#endif
