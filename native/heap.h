/* The heap: blocks of memory whose content is worth nothing once they are freed.
 *
 * For whoever allocates array data (numpy_handler.c). All calls are safe from any thread and in the child
 * of a fork. A pointer that is not the heap's own is told apart by its address alone. */
#ifndef VRANGE_HEAP_H
#define VRANGE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Smaller blocks are left to the allocator below: they share pages, and glibc is as fast with them. */
#define HEAP_BLOCK_BYTES_LEAST ((size_t)64 << 10)

/* Reserves the address space; later calls do nothing. 0, or a negative errno. */
int heap_open(void);

/* Whether new blocks that are large enough get huge pages. */
void heap_use_huge_pages(bool use);

/* NULL: too small, too large, or no place is to be had; the caller asks the allocator below.
 * The first `*stale_bytes` of the block are not zeros. */
void *heap_allocate(size_t bytes, size_t *stale_bytes);

/* Makes zeros of the stale part of a block, which is the caller's own. Takes no lock. */
void heap_clear(void *block, size_t stale_bytes);

bool heap_has(const void *pointer);

/* What the block holds, at least what was asked for. */
size_t heap_block_bytes(const void *block);

/* Makes a block hold `bytes` where it lies. False: it can't, and nothing changed. */
bool heap_resize(void *block, size_t bytes);

/* Frees a block. Ends the process, with a message, where none begins there. */
void heap_free(void *block);

/* For the thread of the reserve, inside the gate: tells the kernel of what has been idle for a while,
 * or, at once, of all that is idle. */
void heap_offer(bool at_once);

#endif
