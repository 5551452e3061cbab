/* The heap: blocks of memory whose content is worth nothing once they are freed.
 *
 * It serves allocators of array data (numpy_handler.c). All calls are safe from any thread, and in the child
 * of a fork. An allocation never waits for a fork, but is refused, and a freed block is put aside until the
 * fork is over. An address alone tells whether a pointer belongs to the heap. */
#ifndef VRANGE_HEAP_H
#define VRANGE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"

/* Smaller blocks go to the allocator below: they share pages, and glibc is as fast with them. */
#define HEAP_BLOCK_BYTES_LEAST ((size_t)64 << 10)

/* Reserves the address space; later calls do nothing. `name` is that of the heap's account. Without a name
 * nothing is counted, no file is made and no thread is started, until a later call has one. Returns 0 or a
 * negative errno: -EAGAIN without a name while a fork is under way. */
int heap_open(const char *name) EXPORTED(heap_open);

/* Where blocks can lie, once the heap is open. Other mappings may lie there, too: heap_has knows. */
#define HEAP_SPANS 2
typedef struct {
    uintptr_t from;
    size_t bytes;
} heap_span;
size_t heap_spans(heap_span spans[HEAP_SPANS]) EXPORTED(heap_spans);

/* Sets whether new blocks that are large enough get huge pages. */
void heap_use_huge_pages(bool use) EXPORTED(heap_use_huge_pages);

/* Returns the address space above the last block, because the program may need it (RLIMIT_AS). Call inside the
 * gate. */
void heap_return_unused(void);

/* Returns NULL if the size is too small or too large, or if no place is free; the caller then asks the
 * allocator below. The first `*stale_bytes` of the block may be other than zero. */
void *heap_allocate(size_t bytes, size_t *stale_bytes) EXPORTED(heap_allocate);

/* Clears the stale part of a block that the caller owns. Takes no lock. */
void heap_clear(void *block, size_t stale_bytes) EXPORTED(heap_clear);

bool heap_has(const void *pointer) EXPORTED(heap_has);

/* Returns the capacity of the block: at least the size that was asked for. */
size_t heap_block_bytes(const void *block) EXPORTED(heap_block_bytes);

/* Resizes a block to `bytes` without moving it. Returns false if that is impossible; nothing changed then. */
bool heap_resize(void *block, size_t bytes) EXPORTED(heap_resize);

/* Moves the content of a block into a larger one, with the pages that it lies in instead of a copy. Returns 0,
 * or -EINVAL if that is impossible; then nothing changed. -ENOMEM: nor has the old block, but there is no
 * memory any more where the larger one was, which must be neither used nor freed. */
int heap_move(void *to, void *from, size_t bytes) EXPORTED(heap_move);

/* Frees a block. Ends the process with a message if no block begins at this address. */
void heap_free(void *block) EXPORTED(heap_free);

/* Stops the caretaker. From now on a freed block keeps its pages, and the heap makes no system call for it: a
 * filter of the program may forbid the call. Returns false, and changes nothing, if the heap has a name or in
 * the child of vfork. */
bool heap_retire(void) EXPORTED(heap_retire);

/* In the child of a fork. */
void heap_after_fork(void);

/* In a child that was made without fork handlers. A zone that was being changed takes and gives nothing. */
void heap_renew_locks(void);

#endif
