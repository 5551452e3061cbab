/* What a zone of the heap consists of; heap_zone.h has what is done to it. */
#ifndef VRANGE_HEAP_ZONE_STATE_H
#define VRANGE_HEAP_ZONE_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/size_class.h"
#include "heap/heap_cells.h"

typedef struct {
    uint32_t units; /* of the span that begins here; 0: no span begins here */
    uint32_t first; /* the first unit of the span that ends here */
    bool used;
    _Atomic bool aside; /* used, but freed: it waits outside the zone to be used again */
    cell_loan loan;     /* of a used block; heap_cells.h. Its owner's, under no lock */
    uint32_t idle_from, idle_end; /* of a free span; if equal, nothing of it is idle */
    uint32_t list_previous, list_next, idle_previous, idle_next;
    uint64_t freed_ns;
} heap_tag;

typedef struct {
    pthread_mutex_t lock;
    _Atomic uint32_t waiting; /* threads that wait for the lock; long work lets them in between its steps */
    char *_Atomic base; /* NULL: no address space could be reserved, and the zone owns no block */
    size_t unit_bytes;
    uint32_t units, committed_units;
    _Atomic uint32_t reach; /* address space is reserved below this unit, and other memory may lie above */
    bool huge;
    heap_tag *tags; /* one a unit; only the tags at the ends of spans are ever written to */
    char *tags_end; /* the tags are mapped up to here, and so is the last page of all */

    uint32_t free_lists[FIRST_LEVELS][SECOND_LEVELS];
    uint64_t first_bitmap;
    uint16_t second_bitmaps[FIRST_LEVELS];
    uint32_t idle_first, idle_last; /* free spans that are not wholly offered, oldest first */

    uint32_t fresh;  /* no unit from here on was ever handed out: they read as zeros */
    uint32_t blocks;
    uint64_t used_units, idle_units; /* units below `fresh` that are neither used nor idle are offered */
} heap_zone;

#endif
