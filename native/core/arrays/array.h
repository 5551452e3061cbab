#ifndef VRANGE_ARRAY_H
#define VRANGE_ARRAY_H

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

/* The array that `address` is in. Safe in a signal handler. */
vrange_array *array_at(const void *address);

/* Puts back the block that `address` is in, and those read ahead. 0 or an errno. Safe in a signal
 * handler, as far as its regenerator is. */
int array_refill(vrange_array *array, const void *address);

/* Tells the kernel of what was filled and nobody has pinned. */
void arrays_offer(void);
bool arrays_exist(void);

/* Mending (mend.c), with the gate closed: all are registered with a new descriptor; what is not pinned
 * counts as lost; or, where there is no descriptor any more, what is not pinned can't be touched. */
int arrays_register(int userfault);
void arrays_forget_content(void);
void arrays_bar(void);

/* Before fork: names to inherit.h the arrays that grow back where they are touched, and their pins. */
void arrays_before_fork(void);

/* In the child of a fork. Without a descriptor (-1) no array can be told what it lacks, so that a touch
 * of what is not pinned ends the child, instead of reading zeros. */
int arrays_register_again(int userfault);

#endif
