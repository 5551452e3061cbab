/* Returns to the kernel what the interpreter's allocator holds and nothing uses.
 *
 * pymalloc cuts an arena of 1 MiB into pools of 16 KiB, each for blocks of one size. It frees an arena only
 * when all its pools are empty, so one surviving object in a thousand keeps nearly all arenas. A pool begins
 * with a header; its blocks follow. Blocks from `next_offset` on were never used; free blocks before it are
 * in a list that runs through them. So these parts can be discarded:
 *
 *   a pool without an object    all but its first page. Its header is changed to that of a pool that was
 *                               just cut from its arena (no size yet). When pymalloc needs a pool next, it
 *                               builds this one anew and reads nothing else of it
 *   behind the last object      all whole pages. `next_offset` moves back to there: for pymalloc, what
 *                               follows was then never used, and it does not read blocks never used
 *   holes: pages of free blocks their blocks leave the list. The pool loses them until it has no object left
 *                               and is returned whole, so the caller asks for this level separately
 *
 * A pool with a free block is in a list of its size, and pymalloc takes the pool's first free block without
 * a check. So at least one block must stay listed. All of this happens with the GIL held, between two calls
 * of pymalloc.
 *
 * The layout is that of 3.11 to 3.15 (Include/internal/pycore_obmalloc.h from 3.12 on). It is verified
 * before it is relied on: if the fields of one header contradict each other, its whole arena is left alone. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "os/os.h"
#include "heap/pymalloc_arenas.h"
#include "python/heap/pymalloc_hook.h"
#include "python/heap/pymalloc_trim.h"

#define PAGE_BYTES 4096u
#define POOL_BYTES 16384u
#define PAGES_A_POOL (POOL_BYTES / PAGE_BYTES)
#define PAGES_AN_ARENA (PYMALLOC_ARENA_BYTES / PAGE_BYTES)
#define SIZE_STEP 16u
#define SIZES 32u
#define NO_SIZE 0xffffu

typedef struct pool {
    uint32_t used; /* blocks that hold objects */
    uint32_t unused;
    uint8_t *free; /* the head of the list of free blocks */
    struct pool *next, *previous;
    uint32_t arena;
    uint32_t size; /* in steps, minus one */
    uint32_t next_offset, last_offset;
} pool;

#define HEADER_BYTES ((uint32_t)sizeof(pool))
#define BLOCKS_MOST ((POOL_BYTES - HEADER_BYTES) / SIZE_STEP)

_Static_assert(sizeof(void *) != 8 || sizeof(pool) == 48, "the header is that of a 64-bit pymalloc");

static uint32_t block_bytes(const pool *p) { return (p->size + 1) * SIZE_STEP; }

static uint32_t cut_blocks(const pool *p) { return (p->next_offset - HEADER_BYTES) / block_bytes(p); }

static uint8_t *next_free(const uint8_t *block) {
    uint8_t *next;
    memcpy(&next, block, sizeof next);
    return next;
}

static void set_next_free(uint8_t *block, uint8_t *next) { memcpy(block, &next, sizeof next); }

/* ---- recognising a pool ------------------------------------------------------------------------ */

static bool is_block_offset(const pool *p, uintptr_t offset) {
    return offset >= HEADER_BYTES && offset < p->next_offset &&
           (offset - HEADER_BYTES) % block_bytes(p) == 0;
}

static bool is_sized_pool(const pool *p) {
    if (p->size >= SIZES || p->last_offset != POOL_BYTES - block_bytes(p)) return false;
    if (p->next_offset < HEADER_BYTES || p->next_offset > POOL_BYTES) return false;
    if ((p->next_offset - HEADER_BYTES) % block_bytes(p) != 0 || p->used > cut_blocks(p)) return false;
    return !p->free || is_block_offset(p, (uintptr_t)p->free - (uintptr_t)p);
}

static bool is_empty_without_size(const pool *p) { return p->size == NO_SIZE && p->used == 0; }

/* A chunk of the frame stack (pystate.h, _PyStackChunk) has its size in its second word. In an arena that
 * begins with a pool, that word is a pointer into the pool; in any other arena it is zero. */
static bool is_stack_chunk(uintptr_t arena) {
    size_t words[2];
    memcpy(words, (const void *)arena, sizeof words);
    return words[1] == PYMALLOC_ARENA_BYTES;
}

/* ---- one pool --------------------------------------------------------------------------------- */

typedef struct {
    pool *pool;
    const unsigned char *resident; /* one byte for each of its pages */
} seen_pool;

static bool any_resident(const seen_pool *seen, uint32_t from, uint32_t to) {
    return from < to && memchr(seen->resident + from, 1, to - from) != NULL;
}

/* Counts the bytes that were resident. Locked memory stays: the program asked for that. */
static void drop(const seen_pool *seen, uint32_t from, uint32_t to, pymalloc_trimmed *trimmed) {
    if (!any_resident(seen, from, to)) return;
    char *address = (char *)seen->pool + from * PAGE_BYTES;
    if (!trimmed->only_counts && os_discard_unlocked(address, (size_t)(to - from) * PAGE_BYTES) < 0) return;
    for (uint32_t page = from; page < to; page++) trimmed->bytes += seen->resident[page] * PAGE_BYTES;
}

static uint32_t page_up(uint32_t offset) { return (offset + PAGE_BYTES - 1) / PAGE_BYTES; }

/* Marks the blocks in the list of free ones. Returns false if the list is not a valid one. */
static bool mark_free(const pool *p, bool *is_free, uint32_t *count) {
    const uint32_t cut = cut_blocks(p);
    memset(is_free, 0, cut * sizeof *is_free);
    *count = 0;
    for (uint8_t *block = p->free; block; block = next_free(block)) {
        uintptr_t offset = (uintptr_t)block - (uintptr_t)p;
        if (!is_block_offset(p, offset)) return false;
        bool *mark = &is_free[(offset - HEADER_BYTES) / block_bytes(p)];
        if (*mark) return false;
        *mark = true;
        ++*count;
    }
    return p->used + *count <= cut;
}

static bool is_hole(const pool *p, const bool *is_free, uint32_t page) {
    const uint32_t size = block_bytes(p);
    const uint32_t first = (page * PAGE_BYTES - HEADER_BYTES) / size;
    const uint32_t last = ((page + 1) * PAGE_BYTES - 1 - HEADER_BYTES) / size;
    return last < cut_blocks(p) && !memchr(is_free + first, false, last - first + 1);
}

/* Lists the free blocks before `end` again, without those in holes. `tail_offset`: no block behind it was ever
 * used; 0: the tail stays as it is. */
static void relist(pool *p, const bool *is_free, const bool *hole, uint32_t end, uint32_t tail_offset) {
    const uint32_t size = block_bytes(p);
    uint8_t *first = NULL, *last = NULL;
    for (uint32_t i = 0; i < end; i++) {
        const uint32_t offset = HEADER_BYTES + i * size;
        if (!is_free[i] || hole[offset / PAGE_BYTES]) continue;
        uint8_t *block = (uint8_t *)p + offset;
        if (last) set_next_free(last, block);
        else first = block;
        last = block;
    }
    if (tail_offset) p->next_offset = tail_offset;
    if (!first) {
        first = last = (uint8_t *)p + tail_offset;
        p->next_offset = tail_offset + size;
    }
    set_next_free(last, NULL);
    p->free = first;
}

static void trim_used_pool(const seen_pool *seen, int level, pymalloc_trimmed *trimmed) {
    pool *p = seen->pool;
    if (!p->free || !any_resident(seen, 1, PAGES_A_POOL)) return;
    bool is_free[BLOCKS_MOST];
    uint32_t free_blocks;
    if (!mark_free(p, is_free, &free_blocks)) {
        trimmed->odd++;
        return;
    }
    const uint32_t size = block_bytes(p), cut = cut_blocks(p);
    uint32_t kept = cut; /* blocks before the tail */
    while (kept > 0 && is_free[kept - 1]) kept--;
    uint32_t listed = free_blocks - (cut - kept);
    const uint32_t tail_offset = HEADER_BYTES + kept * size;
    /* If only the tail has free blocks, its first one stays listed, and the page of its link stays too. */
    uint32_t tail_page = page_up(tail_offset + (listed ? 0 : sizeof(uint8_t *)));
    if (!any_resident(seen, tail_page, PAGES_A_POOL)) tail_page = PAGES_A_POOL;
    const bool has_tail = tail_page < PAGES_A_POOL;
    const uint32_t end = has_tail ? kept : cut; /* this code decides which blocks below `end` are listed */
    if (!has_tail) listed = free_blocks;

    bool hole[PAGES_A_POOL] = {false}, any_hole = false;
    for (uint32_t page = 1; level >= PYMALLOC_HOLES && page < tail_page; page++) {
        if (!seen->resident[page] || !is_hole(p, is_free, page)) continue;
        uint32_t unlisted = 0;
        for (uint32_t i = 0; i < end; i++)
            unlisted += is_free[i] && (HEADER_BYTES + i * size) / PAGE_BYTES == page;
        if (unlisted >= listed) continue;
        listed -= unlisted;
        hole[page] = any_hole = true;
    }
    if (!has_tail && !any_hole) return;
    if (!trimmed->only_counts) relist(p, is_free, hole, end, has_tail ? tail_offset : 0);
    drop(seen, tail_page, PAGES_A_POOL, trimmed);
    for (uint32_t page = 1; page < tail_page; page++)
        if (hole[page]) drop(seen, page, page + 1, trimmed);
}

static void trim_pool(const seen_pool *seen, int level, pymalloc_trimmed *trimmed) {
    if (seen->pool->used == 0) {
        /* Written only if needed: a child may share the page. */
        if (!trimmed->only_counts && seen->pool->size != NO_SIZE) seen->pool->size = NO_SIZE;
        drop(seen, 1, PAGES_A_POOL, trimmed);
    } else if (level >= PYMALLOC_TAILS) {
        trim_used_pool(seen, level, trimmed);
    }
}

/* ---- one arena -------------------------------------------------------------------------------- */

void pymalloc_trim_arena(uintptr_t arena, int level, pymalloc_trimmed *trimmed) {
    unsigned char resident[PAGES_AN_ARENA];
    seen_pool pools[PYMALLOC_ARENA_BYTES / POOL_BYTES];
    size_t count = 0;
    if (is_stack_chunk(arena)) return;
    if (os_residency((void *)arena, PYMALLOC_ARENA_BYTES, resident) < 0) return;
    uintptr_t at = (arena + POOL_BYTES - 1) / POOL_BYTES * POOL_BYTES;
    for (; at + POOL_BYTES <= arena + PYMALLOC_ARENA_BYTES; at += POOL_BYTES) {
        pool *p = (pool *)at;
        const unsigned char *pages = resident + (at - arena) / PAGE_BYTES;
        if (!pages[0] || p->last_offset == 0) continue; /* never cut from the arena, or swapped out */
        if (!is_sized_pool(p) && !is_empty_without_size(p)) break;
        if (count && p->arena != pools[0].pool->arena) break;
        pools[count++] = (seen_pool){p, pages};
    }
    if (at + POOL_BYTES <= arena + PYMALLOC_ARENA_BYTES) {
        trimmed->odd++;
        return;
    }
    for (size_t i = 0; i < count; i++) trim_pool(&pools[i], level, trimmed);
}

/* ---- verifying the layout ---------------------------------------------------------------------- */

#define PROBES 96 /* more than one pool holds of this size */
#define PROBE_BYTES 240

static pool *pool_of(void *object) { return (pool *)((uintptr_t)object / POOL_BYTES * POOL_BYTES); }

static const char *look_at(void *object) {
    pool *p = pool_of(object);
    if (!os_is_readable(p) || !is_sized_pool(p) || p->used == 0)
        return "an object does not lie in a pool with the layout of 3.11 to 3.15";
    const uint32_t size = block_bytes(p);
    const uint32_t offset = (uint32_t)((uintptr_t)object - (uintptr_t)p);
    if (size != PROBE_BYTES || offset < HEADER_BYTES || (offset - HEADER_BYTES) % size != 0)
        return "an object does not lie in a block of its size (debug hooks enlarge blocks)";
    return NULL;
}

static const char *free_and_look(void *object) {
    pool *p = pool_of(object);
    const uint32_t used = p->used, size = block_bytes(p);
    uint8_t *free = p->free;
    const uint32_t index = (uint32_t)(((uintptr_t)object - (uintptr_t)p - HEADER_BYTES) / size);
    uint8_t *block = (uint8_t *)p + HEADER_BYTES + index * size;
    PyObject_Free(object);
    /* The pool itself stays: it holds another of the objects. */
    if (p->used != used - 1 || p->free != block || next_free(block) != free)
        return "a freed object does not become the first of its pool's free blocks";
    return NULL;
}

const char *pymalloc_layout_refusal(void) {
    if (os_page_bytes() != PAGE_BYTES)
        return "pages here are not of 4 KiB, so a pool would be one or two pages";
    void *objects[PROBES];
    int made = 0;
    const char *refusal = NULL;
    for (; made < PROBES && !refusal; made++) {
        if (!(objects[made] = PyObject_Malloc(PROBE_BYTES))) break;
        refusal = look_at(objects[made]);
    }
    if (made < PROBES && !refusal) refusal = "out of memory: the layout can't be verified";
    bool seen = false;
    for (int i = 0; i + 1 < made && !refusal && !seen; i++) {
        if (pool_of(objects[i]) != pool_of(objects[i + 1])) continue;
        refusal = free_and_look(objects[i]);
        objects[i] = NULL;
        seen = true;
    }
    if (!seen && !refusal) refusal = "no two objects of one size were put into one pool";
    for (int i = 0; i < made; i++) PyObject_Free(objects[i]);
    return refusal;
}
