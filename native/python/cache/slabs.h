/* Slabs: ranges that many small values share. */
#ifndef VRANGE_CACHE_SLABS_H
#define VRANGE_CACHE_SLABS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "python/cache/place.h"

#define SLAB_BYTES (64u << 10)
#define SLAB_CLASSES 64

/* Half of the smallest page, and the prefix of a natively coded str or bytes. A larger value has a range of
 * its own. */
#define SMALL_BYTES_MOST (2048 + 3)

typedef struct slab {
    uint64_t handle;
    char *memory;
    uint32_t number, slot_bytes, slots;
    uint32_t used, fresh;         /* fresh: slots from here on were never used */
    uint32_t free_first;          /* a slot; NO_SLOT: none */
    bool is_read_only;            /* it is away (vrange_is_away): values are only read from it */
    uint32_t size_class;
    struct slab *previous, *next; /* slabs of its size class that take values */
    entry_no owners[];            /* or the next free slot */
} slab;

#define NO_SLOT UINT32_MAX

typedef struct {
    slab **all;
    uint32_t room, free; /* free: an unused number, + 1 */
    slab *open[SLAB_CLASSES];
} slab_table;

slab *slabs_with_room(slab_table *slabs, size_t bytes);

/* Adds a fresh range of SLAB_BYTES. NULL without memory. */
slab *slabs_add(slab_table *slabs, uint64_t handle, size_t bytes);

/* Writes a value into a free slot. False: the slab was purged meanwhile. */
bool slabs_write(slab_table *slabs, slab *to, const void *data, size_t bytes, entry_no owner, uint64_t *place);

/* Copies a value to `buffer` and returns its length, or -1 if the slab is lost. */
ssize_t slabs_read(const slab_table *slabs, uint64_t place, char *buffer);

slab *slab_of(const slab_table *slabs, uint64_t place);

slab *slab_numbered(const slab_table *slabs, uint32_t number); /* NULL: there is none */

/* Frees the slot. Returns the handle of a range to be freed, or 0. */
uint64_t slabs_free_slot(slab_table *slabs, uint64_t place);

/* The entry in a slot; 0: none. */
entry_no slab_owner(const slab *s, uint32_t slot);

uint32_t slab_slot(uint64_t place);

/* Removes a slab that no entry refers to any more. Its range is the caller's. */
void slabs_remove(slab_table *slabs, slab *gone);

/* Removes the next slab of a table that is given up, and returns its range, or 0 if that number was unused. */
uint64_t slabs_dismantle(slab_table *slabs, uint32_t number);

#endif
