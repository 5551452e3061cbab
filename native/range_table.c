/* The table of all descriptors, and where the memory of each lies.
 *
 * Descriptors are recycled and their chunks never unmapped, so that whoever has a stale handle may
 * look at what it names; the generation tells him that it is somebody else's now. */
#include "range.h"

#include <pthread.h>

#include "arena.h"
#include "os.h"

#define TABLE_CHUNKS 65536u

static struct {
    pthread_mutex_t lock;
    table_chunk *_Atomic chunks[TABLE_CHUNKS];
    _Atomic uint32_t count; /* index 0 is never a range */
    uint32_t free_first;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .count = 1};

range *table_at(uint32_t index) {
    table_chunk *chunk =
        atomic_load_explicit(&table.chunks[index / TABLE_CHUNK], memory_order_acquire);
    return &chunk->ranges[index % TABLE_CHUNK];
}

uint32_t table_count(void) { return atomic_load(&table.count); }

range *table_take(void) {
    range *r = NULL;
    pthread_mutex_lock(&table.lock);
    if (table.free_first) {
        r = table_at(table.free_first);
        table.free_first = r->list_next;
    } else if (table.count < TABLE_CHUNK * TABLE_CHUNKS - 1) {
        uint32_t index = table.count, chunk = index / TABLE_CHUNK;
        if (!table.chunks[chunk])
            atomic_store(&table.chunks[chunk], os_map_aligned(TABLE_CHUNK_SPAN, TABLE_CHUNK_SPAN));
        if (table.chunks[chunk]) {
            r = table_at(index);
            r->index = index;
            atomic_store(&table.count, index + 1);
        }
    }
    pthread_mutex_unlock(&table.lock);
    return r;
}

void table_give(range *r) {
    pthread_mutex_lock(&table.lock);
    atomic_store(&r->arena, NULL);
    r->list_next = table.free_first;
    table.free_first = r->index;
    pthread_mutex_unlock(&table.lock);
}

char *range_address(const range *r) {
    return r->arena->base + (size_t)r->first_page * os_page_bytes();
}

size_t range_bytes(const range *r) { return (size_t)r->pages * os_page_bytes(); }
