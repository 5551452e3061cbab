/* An array, as the files of this room see it. */
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

    _Atomic uint64_t pinned;      /* sum of all blocks' pins; at 0, fork need not look at the blocks */
    /* By block. BLOCK_BUSY while a thread advises the kernel of it; BLOCK_FILLING until the first of its
     * pinning threads has found all of it present. */
    _Atomic uint32_t *pins;
    _Atomic uint64_t *filled;     /* a bit a block: filled, and not offered since */
    _Atomic uint64_t *offered;    /* a bit a block: offered once, to be offered again */
    _Atomic uint64_t *filled_map; /* a bit for each word of the two bitmaps */
    _Atomic uint64_t filled_bytes;

    /* For sequential access: the block that each stream is expected to touch next, and how far it was read
     * ahead. */
    struct {
        _Atomic uint64_t next;
        _Atomic uint32_t ahead;
    } streams[STREAMS];
    _Atomic uint32_t stream_to_replace;

    _Atomic uint64_t refaults, refilled_bytes;
};

#endif
