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

enum {
    HEAP_IDLE,    /* the kernel has not been told that it may take it */
    HEAP_OFFERED, /* it has been; perhaps it took it */
    HEAP_STRETCHES,
};

/* A part of a free span; if `from` and `end` are equal, nothing. heap_stretch.h */
typedef struct {
    uint32_t from, end, previous, next;
    uint64_t since_ns;
} heap_stretch;

typedef struct {
    uint32_t first, last; /* spans, oldest first */
    uint64_t units;
} heap_queue;

typedef struct {
    uint32_t units; /* of the span that begins here; 0: no span begins here */
    uint32_t first; /* the first unit of the span that ends here */
    bool used;
    _Atomic bool aside; /* used, but freed: it waits outside the zone to be used again */
    cell_loan loan;     /* of a used block; heap_cells.h. Its owner's, under no lock */
    uint32_t list_previous, list_next;
    heap_stretch stretches[HEAP_STRETCHES]; /* of a free span */
} heap_tag;

enum {
    HEAP_BLOCK_ORDINARY,
    HEAP_BLOCK_MAPPED, /* glibc would map it */
    HEAP_BLOCK_KINDS,
};

typedef struct {
    uint64_t until_ns; /* what gave way to such blocks has to be kept for as long */
    bool is_over;      /* nothing more gives way until then */
} heap_gave_way;

#define HEAP_WARM 64 /* the 65th processor shares with the first */

typedef struct {
    pthread_mutex_t lock;
    _Atomic uint32_t waiting;  /* threads that wait for the lock; long work lets them in between its steps */
    _Atomic uint32_t yielding; /* threads between two steps of long work, until a waiter has got in */
    bool got_in;               /* a waiter has, and has not told them yet; under the lock */
    char *_Atomic base; /* NULL: no address space could be reserved, and the zone owns no block */
    size_t unit_bytes;
    uint32_t units, committed_units;
    _Atomic uint32_t reach; /* address space is reserved below this unit, and other memory may lie above */
    bool huge;
    bool torn; /* a thread that exists only in the parent was changing it: it stays as it is */
    heap_tag *tags; /* one a unit; only the tags at the ends of spans are ever written to */
    char *tags_end; /* the tags are mapped up to here, and so is the last page of all */

    uint32_t free_lists[FIRST_LEVELS][SECOND_LEVELS];
    uint64_t first_bitmap;
    uint16_t second_bitmaps[FIRST_LEVELS];
    heap_queue queues[HEAP_STRETCHES];
    uint32_t warm[HEAP_WARM]; /* of each processor: where the span began that a thread freed last; 0: none */

    uint32_t fresh;  /* no unit from here on was ever handed out: they read as zeros */
    uint32_t blocks;
    uint64_t peak_units; /* heap_peak.h; so is `gave_way` */
    heap_gave_way gave_way[HEAP_BLOCK_KINDS];
    uint64_t used_units; /* units below `fresh` that are neither used nor idle were offered, or discarded */
} heap_zone;

#endif
