/* Freed blocks that the processor which freed them takes again without a lock.
 *
 * A cell holds one block, and one atomic instruction changes it as a whole. So a cell has no owner, a fork
 * finds it consistent, and a thread that ends leaves nothing to clean up. Each processor has cells of its
 * own: a block is used again where the processor's caches hold its lines, and the number of cells does not
 * grow with the threads. A thread that moves to another processor meanwhile uses the cells of the first
 * one, which is safe. */
#ifndef VRANGE_HEAP_CELLS_H
#define VRANGE_HEAP_CELLS_H

#include <stdbool.h>
#include <stdint.h>

/* In units of the zone that the blocks lie in. `first` is 0 if there is no block. */
typedef struct {
    uint32_t first, units;
} cell_block;

/* Larger blocks take so long to fill that a lock does not matter, but it matters whether they are in a cache of
 * the processor. A zone knows best: it cuts a block where the last one was freed, whatever the size. */
#define CELL_BYTES_MOST ((size_t)1020 << 10)

/* What a block has beyond its request, counted where it was taken. 0: nothing worth counting. */
typedef uint16_t cell_loan;

/* Reserves the cells, which hold `units_most` for each processor at most. Without memory nothing is kept. */
void cells_open(uint64_t units_most);

/* From now on the cells of all processors hold `units` together at most, or what cells_open said. Each may hold
 * some blocks in any case: it would be of no use otherwise. Those that are there stay. */
void cells_bound(uint64_t units);

/* Returns a block of at least `units` and at most twice as much, with a loan that the caller repays when the
 * block is freed. */
cell_block cells_take(uint32_t units, cell_loan *loan);
void cells_repay(cell_loan loan);

/* Returns what has no room: this block, an older one whose place it takes, or none (`first` is 0). */
cell_block cells_put(cell_block block);

/* Takes the blocks out that have not moved since `before_ns`, or all of them with UINT64_MAX; one a call, from
 * *at on, which is 0 at first. Returns no block at the end. One caller at a time. */
cell_block cells_drain(uint32_t *at, uint64_t now_ns, uint64_t before_ns);

/* What lies in cells now. */
typedef struct {
    uint64_t blocks, units;
} cells_content;
cells_content cells_read(void);

/* In the child of a fork, which has one thread: blocks that others were just moving are lost to the child. */
void cells_after_fork(void);

#endif
