/* The table of all descriptors, and where the memory of each lies.
 *
 * Descriptors are recycled and their chunks are never unmapped. So a stale handle can always be looked up;
 * the generation then shows that its descriptor serves another range now.
 *
 * The child of a fork inherits the table, but only the memory of pinned ranges (inherit.h). All other ranges
 * are purged there, and those of caches are away (range_away.h). A fork can't take the time to change a million
 * words. So the child marks the chunks as unread, and changes the words of a chunk when one of its ranges is
 * first looked up. */
#define _GNU_SOURCE
#include "ranges/range_table.h"

#include <pthread.h>
#include <stdlib.h>

#include "ranges/arena_state.h"
#include "base/space_budget.h"
#include "base/inherit.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "ranges/owners.h"

#define TABLE_CHUNKS 65536u

static struct {
    pthread_mutex_t lock;
    _Atomic uintptr_t chunks[TABLE_CHUNKS]; /* the address, and perhaps the bit UNREAD */
    _Atomic uint32_t count; /* index 0 is never a range */
    uint32_t free_first;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .count = 1};

/* Marks a chunk that this child has not read yet; the next bits are the level of the owner that it was
 * inherited from. A thread that reads one holds the lock. */
#define UNREAD ((uintptr_t)1)
#define LEVEL_SHIFT 1
#define CHUNK_BITS ((uintptr_t)TABLE_CHUNK_SPAN - 1)
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;

static table_chunk *chunk_in(uintptr_t place) { return (table_chunk *)(place & ~CHUNK_BITS); }

static uint32_t level_in(uintptr_t place) { return (uint32_t)((place & CHUNK_BITS) >> LEVEL_SHIFT); }

void range_forget_lost_pages(range *r) {
    free(r->lost_pages);
    r->lost_pages = NULL;
}

/* Whether the content can be read where it stayed. It can't for a range of the program's own: what the child
 * finds lost there is what it refills. */
static bool can_be_read(const range *r, uint64_t word, const owner *of) {
    if (!of || !atomic_load(&r->owner)) return false;
    if (word & (WORD_PARTIAL | WORD_LOST | WORD_DOOMED)) return false;
    return word_state(word) == RESIDENT || word_state(word) == OFFERED;
}

/* The range was not kept: in whatever state it was, the child has its address space without the content. */
static void be_left(range *r, _Atomic uint64_t *place, uint64_t word, uint32_t level) {
    const uint64_t away = can_be_read(r, word, owner_at(level)) ? word_away_at(level) : 0;
    if (word & (WORD_PARTIAL | WORD_LOST)) {
        range_forget_lost_pages(r);
        r->missing_pages = 0;
    }
    atomic_store(place, (word & (WORD_GENERATION | WORD_PARTIAL)) | WORD_LOST | PURGED | away);
}

/* The child has the pages of a kept range as the owner has them. If its parent inherited them too, the owner is
 * the one before. */
static void be_inherited(range *r, _Atomic uint64_t *place, uint64_t word, uint32_t level) {
    if (!atomic_load(&r->inherited) && owner_at(level)) {
        r->inherited_from = (uint8_t)level;
        atomic_store(&r->inherited, true);
    }
    atomic_store(place, word & ~WORD_KEPT);
}

/* The marks that the child inherited are the owner's. */
static void take_marks(table_chunk *chunk, uint32_t level) {
    if (level < NO_OWNER) chunk->owner_marks[level] = atomic_load(&chunk->marks);
    atomic_store(&chunk->marks, NULL);
}

static table_chunk *read_chunk(uint32_t number) {
    pthread_mutex_lock(&reading);
    const uintptr_t place = atomic_load(&table.chunks[number]);
    table_chunk *chunk = chunk_in(place);
    if (place & UNREAD) {
        const uint32_t level = atomic_load(&chunk->marks) ? level_in(place) : NO_OWNER;
        take_marks(chunk, level);
        for (uint32_t i = 0; i < TABLE_CHUNK; i++) {
            const uint64_t word = atomic_load_explicit(&chunk->words[i], memory_order_relaxed);
            const uint64_t state = word_state(word);
            if (word & WORD_KEPT) be_inherited(&chunk->ranges[i], &chunk->words[i], word, level);
            else if (state != FREE && state != PURGED)
                be_left(&chunk->ranges[i], &chunk->words[i], word, level);
        }
        atomic_store_explicit(&table.chunks[number], (uintptr_t)chunk, memory_order_release);
    }
    pthread_mutex_unlock(&reading);
    return chunk;
}

range *table_at(uint32_t index) {
    const uint32_t number = index / TABLE_CHUNK;
    const uintptr_t place = atomic_load_explicit(&table.chunks[number], memory_order_acquire);
    table_chunk *chunk = place & UNREAD ? read_chunk(number) : chunk_in(place);
    return &chunk->ranges[index % TABLE_CHUNK];
}

uint32_t table_count(void) { return atomic_load(&table.count); }

/* The caller holds the table's lock. A process with more than a few ranges gets its chunks on huge pages, if
 * the machine has them: fork copies one page-table entry for each page. */
static void map_chunk(uint32_t number) {
    const uint32_t together = OS_HUGE_BYTES / TABLE_CHUNK_SPAN;
    if (number >= together && number % together == 0) {
        const bool is_given = space_take(OS_HUGE_BYTES, SPACE_MORE);
        char *chunks = is_given ? os_map_huge(1) : NULL;
        if (is_given && !chunks) space_give(OS_HUGE_BYTES, SPACE_MORE);
        for (uint32_t i = 0; chunks && i < together; i++)
            atomic_store(&table.chunks[number + i], (uintptr_t)chunks + i * TABLE_CHUNK_SPAN);
        if (chunks) return;
    }
    if (!space_take(TABLE_CHUNK_SPAN, SPACE_NEEDED)) return;
    char *chunk = os_map_aligned(TABLE_CHUNK_SPAN, TABLE_CHUNK_SPAN);
    if (!chunk) space_give(TABLE_CHUNK_SPAN, SPACE_NEEDED);
    atomic_store(&table.chunks[number], (uintptr_t)chunk);
}

range *table_take(void) {
    range *r = NULL;
    pthread_mutex_lock(&table.lock);
    if (table.free_first) {
        r = table_at(table.free_first);
        table.free_first = r->list_next;
    } else if (table.count < TABLE_CHUNK * TABLE_CHUNKS - 1) {
        uint32_t index = table.count, chunk = index / TABLE_CHUNK;
        if (!table.chunks[chunk]) map_chunk(chunk);
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
    return r->arena->spans[r->span].base + (size_t)r->first_page * os_page_bytes();
}

size_t range_bytes(const range *r) { return (size_t)r->pages * os_page_bytes(); }

/* ---- fork ------------------------------------------------------------------------------------- */

/* The words of an unread chunk are still those of the parent, but ranges that were kept are marked. */
static void keep_pinned_of(table_chunk *chunk, uint64_t mask, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        if (!(atomic_load_explicit(&chunk->words[i], memory_order_relaxed) & mask)) continue;
        range *r = &chunk->ranges[i];
        if (!atomic_load(&r->shared)) atomic_store(&r->shared, true); /* each write may copy a page */
        inherit_keep(range_address(r), range_bytes(r), r->index);
    }
}

/* Gives every chunk that is this process's own its marks. False without memory. */
static bool make_marks(void) {
    const uint32_t end = table_count();
    size_t missing = 0;
    for (uint32_t first = 0; first < end; first += TABLE_CHUNK) {
        const uintptr_t place = atomic_load(&table.chunks[first / TABLE_CHUNK]);
        missing += place && !(place & UNREAD) && !atomic_load(&chunk_in(place)->marks);
    }
    range_mark *marks = missing ? os_map_for_children(missing * TABLE_CHUNK * sizeof *marks) : NULL;
    if (!marks) return missing == 0;
    for (uint32_t first = 0; first < end; first += TABLE_CHUNK) {
        const uintptr_t place = atomic_load(&table.chunks[first / TABLE_CHUNK]);
        if (!place || place & UNREAD || atomic_load(&chunk_in(place)->marks)) continue;
        atomic_store(&chunk_in(place)->marks, marks);
        marks += TABLE_CHUNK;
    }
    return true;
}

bool table_before_fork(void) {
    pthread_mutex_lock(&reading);
    const bool has_marks = make_marks();
    const uint32_t end = table_count();
    for (uint32_t first = 0; first < end; first += TABLE_CHUNK) {
        const uintptr_t place = atomic_load(&table.chunks[first / TABLE_CHUNK]);
        const uint32_t count = end - first < TABLE_CHUNK ? end - first : TABLE_CHUNK;
        if (place) keep_pinned_of(chunk_in(place), place & UNREAD ? WORD_KEPT : WORD_PINS, count);
    }
    return has_marks && end > 1;
}

void table_renew_locks(void) {
    (void)os_lock_renew(&table.lock); /* whatever was left undone, the free list is whole */
    (void)os_lock_renew(&reading);
}

void table_read_all(void) {
    for (uint32_t first = 0; first < table_count(); first += TABLE_CHUNK)
        if (atomic_load(&table.chunks[first / TABLE_CHUNK])) (void)table_at(first);
}

void table_after_fork_in_parent(void) { pthread_mutex_unlock(&reading); }

range *table_kept(uint32_t index) {
    table_chunk *chunk = chunk_in(atomic_load(&table.chunks[index / TABLE_CHUNK]));
    return &chunk->ranges[index % TABLE_CHUNK];
}

static void mark_unread(_Atomic uintptr_t *place, uint32_t level) {
    const uintptr_t chunk = atomic_load(place);
    /* One that the parent has not read either was left by an owner before it. */
    if (chunk && !(chunk & UNREAD)) atomic_store(place, chunk | UNREAD | (uintptr_t)level << LEVEL_SHIFT);
}

void table_after_fork_in_child(bool is_settled, uint32_t level) {
    pthread_mutex_unlock(&reading);
    (void)os_lock_renew(&reading); /* threads that waited for it do not exist here */
    for (uint32_t first = 0; first < table_count(); first += TABLE_CHUNK) {
        _Atomic uintptr_t *place = &table.chunks[first / TABLE_CHUNK];
        if (is_settled) mark_unread(place, level);
        else if (atomic_load(place) && !(atomic_load(place) & UNREAD))
            take_marks(chunk_in(atomic_load(place)), NO_OWNER);
    }
    if (!is_settled) return;
    size_t count;
    const inherited_span *spans = inherited_spans(&count);
    for (size_t i = 0; i < count; i++) {
        if (spans[i].range) atomic_fetch_or(range_word(table_kept(spans[i].range)), WORD_KEPT);
    }
}
