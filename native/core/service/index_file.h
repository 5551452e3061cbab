/* The file of a shared index: made, checked and mapped. */
#ifndef VRANGE_INDEX_FILE_H
#define VRANGE_INDEX_FILE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/index_layout.h"

/* What only this process knows of the index. The child of a fork finds it zeroed: it is not a member until it
 * joins, and it owns no block. */
typedef struct {
    pthread_mutex_t lock; /* for the blocks, and what is written to them */
    _Atomic uint64_t identity;
    _Atomic uint32_t place;
    uint32_t stamps;
    uint32_t claim;               /* where the search for a block begins */
    uint32_t owned[CELL_CLASSES]; /* how many blocks of each class */
    uint32_t hand[CELL_CLASSES];  /* the next cell to look at, among those of the class */
    uint32_t numbers[];           /* of these blocks: room for all of them in each class */
} index_own;

typedef struct vrange_shared {
    char *base;
    size_t bytes;
    uint64_t device, inode; /* of the file */
    uint32_t bucket_mask, block_count;
    index_member *members;
    index_flight *flights;
    index_block *blocks;
    _Atomic uint64_t *words;
    char *cells;
    index_own *own;
    struct vrange_shared *next; /* of all that are watched (index_cut.h) */
    _Atomic bool is_watched, is_cut; /* cut: its file is not whole any more, and nothing in it counts */
} vrange_shared;

static inline index_record *record_at(const vrange_shared *s, uint32_t cell) {
    return (index_record *)(void *)(s->cells + (size_t)cell * CELL_BYTES);
}

#endif
