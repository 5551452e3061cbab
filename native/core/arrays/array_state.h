/* What the files of this room know of an array. */
#ifndef VRANGE_ARRAY_STATE_H
#define VRANGE_ARRAY_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "counters/stats.h"
#include "vrange.h"

#define STREAMS 4

struct vrange_array {
    char *base;
    size_t bytes;       /* of content */
    size_t mapped_bytes;
    size_t block_bytes;
    size_t blocks;
    vrange_regenerate regenerate;
    void *context;
    vrange_account *account;

    _Atomic uint64_t pinned;      /* blocks, each as often as it is pinned; 0: fork need not look */
    _Atomic uint32_t *pins;       /* by block; BLOCK_BUSY while somebody advises the kernel of it, BLOCK_FILLING
                              * until the first of those who pin it has found all of it there */
    _Atomic uint64_t *filled;     /* a bit a block: filled, and the kernel not told that it may go */
    _Atomic uint64_t *offered;    /* told of once, and to be told of again */
    _Atomic uint64_t *filled_map; /* a bit a word of the two */
    _Atomic uint64_t filled_bytes;

    /* The blocks expected next by those who touch in sequence, and how far they were read ahead. */
    struct {
        _Atomic uint64_t next;
        _Atomic uint32_t ahead;
    } streams[STREAMS];
    _Atomic uint32_t stream_to_replace;

    _Atomic uint64_t refaults, refilled_bytes;
};

#endif
