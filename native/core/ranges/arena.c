/* Arenas: address space that is reserved in one piece, cut into ranges, and joined again.
 *
 * The ranges of an arena, used and free, form a list in address order. Each free range is also in one of a
 * few hundred lists by size. The lists have two levels, the power of two and a sixteenth of it, and bitmaps
 * show which lists are not empty. Taking and returning a range are O(1). Free neighbours are joined at once,
 * and a range that is taken is never larger than requested. This is the two-level segregated fit of Masmano
 * et al. (2004), except that the bookkeeping lies outside the memory that it describes: a free range here has
 * no pages at all, and a header in it would cost one.
 *
 * Memory is made accessible in steps, from the bottom up. So under vm.overcommit_memory=2 only memory that
 * was used at least once counts as committed, and an arena stays two mappings instead of thousands. */
#include "ranges/range_table.h"
#include "ranges/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/gate.h"
#include "base/inherit.h"
#include "os/os.h"
#include "base/rung.h"
#include "base/scratch.h"
#include "ranges/worth.h"

#define COMMIT_STEP_BYTES (64u << 20)
#define SAME_CLASS_TRIES 32

static struct {
    pthread_mutex_t lock;
    vrange_arena *first;
    vrange_arena *unused; /* never freed: a stale handle may still lead to one */
} arenas = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- free lists ------------------------------------------------------------------------------- */

static void free_list_add(vrange_arena *arena, range *r) {
    size_class c = class_of(r->pages);
    uint32_t head = arena->free_lists[c.first][c.second];
    r->list_previous = 0;
    r->list_next = head;
    if (head) table_at(head)->list_previous = r->index;
    arena->free_lists[c.first][c.second] = r->index;
    arena->first_bitmap |= 1ull << c.first;
    arena->second_bitmaps[c.first] |= (uint16_t)(1u << c.second);
}

static void free_list_remove(vrange_arena *arena, range *r) {
    size_class c = class_of(r->pages);
    if (r->list_next) table_at(r->list_next)->list_previous = r->list_previous;
    if (r->list_previous) {
        table_at(r->list_previous)->list_next = r->list_next;
        return;
    }
    arena->free_lists[c.first][c.second] = r->list_next;
    if (r->list_next) return;
    arena->second_bitmaps[c.first] &= (uint16_t)~(1u << c.second);
    if (!arena->second_bitmaps[c.first]) arena->first_bitmap &= ~(1ull << c.first);
}

static range *find_free(vrange_arena *arena, uint32_t pages) {
    size_class c = class_not_empty(class_that_fits(pages), arena->first_bitmap, arena->second_bitmaps);
    if (c.first < FIRST_LEVELS) return table_at(arena->free_lists[c.first][c.second]);
    /* The list of the size's own class may hold a range that is just large enough. This is the last chance
     * of a nearly full arena. The number of tries is bounded, so that a full arena fails as fast. */
    c = class_of(pages);
    uint32_t index = arena->free_lists[c.first][c.second];
    for (int tries = 0; index && tries < SAME_CLASS_TRIES; tries++) {
        range *r = table_at(index);
        if (r->pages >= pages) return r;
        index = r->list_next;
    }
    return NULL;
}

/* ---- taking and returning ranges -------------------------------------------------------------- */

static int commit_up_to(vrange_arena *arena, uint64_t page_after) {
    if (page_after <= arena->committed_pages) return 0;
    const size_t page = os_page_bytes();
    uint64_t step = COMMIT_STEP_BYTES / page;
    uint64_t end = (page_after + step - 1) / step * step;
    if (end > arena->pages) end = arena->pages;
    for (;;) {
        char *from = arena->base + (size_t)arena->committed_pages * page;
        size_t bytes = (size_t)(end - arena->committed_pages) * page;
        int result = os_commit(from, bytes);
        if (result == 0 && rung_userfault() >= 0)
            result = os_userfault_register(rung_userfault(), from, bytes);
        if (result == 0) {
            arena->committed_pages = (uint32_t)end;
            return 0;
        }
        if (end == page_after) return result;
        end = page_after; /* near the limit of committed memory: only what is needed */
    }
}

int arena_take(vrange_arena *arena, uint32_t pages, range **out) {
    pthread_mutex_lock(&arena->lock);
    int result = -ENOMEM;
    range *r = arena->closing ? NULL : find_free(arena, pages);
    if (r) {
        result = commit_up_to(arena, (uint64_t)r->first_page + pages);
        range *rest = result == 0 && r->pages > pages ? table_take() : NULL;
        if (result == 0 && r->pages > pages && !rest) result = -ENOMEM;
        if (result == 0) {
            free_list_remove(arena, r);
            if (rest) {
                rest->arena = arena;
                rest->first_page = r->first_page + pages;
                rest->pages = r->pages - pages;
                rest->below = r->index;
                rest->above = r->above;
                if (r->above) table_at(r->above)->below = rest->index;
                r->above = rest->index;
                r->pages = pages;
                free_list_add(arena, rest);
            }
            r->list_previous = r->list_next = 0;
            uint64_t generation = atomic_load(range_word(r)) & WORD_GENERATION;
            atomic_store(range_word(r), generation | BUSY);
            atomic_fetch_add(&arena->ranges, 1);
            tally(&arena->account->ranges, 1);
            tally(&arena->account->range_bytes, range_bytes(r));
        }
    }
    pthread_mutex_unlock(&arena->lock);
    if (result == 0) *out = r;
    return result;
}

static void end_generation(range *r) {
    uint64_t generation = atomic_load(range_word(r)) & WORD_GENERATION;
    atomic_store(range_word(r), ((generation + (1ull << 32)) & WORD_GENERATION) | FREE);
}

/* `gone_above` begins where `r` ends. Its descriptor is recycled. */
static void join(range *r, range *gone_above) {
    r->pages += gone_above->pages;
    r->above = gone_above->above;
    if (gone_above->above) table_at(gone_above->above)->below = r->index;
    table_give(gone_above);
}

static bool is_free(const range *r) { return word_state(atomic_load(range_word(r))) == FREE; }

static void give_blank_back(vrange_arena *arena) {
    pthread_mutex_lock(&arenas.lock);
    arena->next = arenas.unused;
    arenas.unused = arena;
    pthread_mutex_unlock(&arenas.lock);
}

static void destroy(vrange_arena *arena) {
    const size_t bytes = (size_t)arena->pages * os_page_bytes();
    for (unsigned first = 0; first < FIRST_LEVELS; first++) {
        for (unsigned second = 0; second < SECOND_LEVELS; second++) {
            for (uint32_t index = arena->free_lists[first][second]; index;) {
                range *r = table_at(index);
                index = r->list_next;
                table_give(r);
            }
        }
    }
    os_unreserve(arena->base, bytes);
    untally(&arena->account->reserved_bytes, bytes);
    pthread_mutex_lock(&arenas.lock);
    if (arena->previous) arena->previous->next = arena->next;
    else arenas.first = arena->next;
    if (arena->next) arena->next->previous = arena->previous;
    pthread_mutex_unlock(&arenas.lock);
    give_blank_back(arena);
}

static vrange_arena *blank_arena(void) {
    pthread_mutex_lock(&arenas.lock);
    vrange_arena *arena = arenas.unused;
    if (arena) arenas.unused = arena->next;
    pthread_mutex_unlock(&arenas.lock);
    if (arena) memset(arena, 0, sizeof *arena);
    else arena = calloc(1, sizeof *arena);
    if (arena) pthread_mutex_init(&arena->lock, NULL);
    return arena;
}


void arena_give(range *r) {
    vrange_arena *arena = r->arena;
    pthread_mutex_lock(&arena->lock);
    if (r->listed) arena_unlist_lost(r);
    untally(&arena->account->ranges, 1);
    untally(&arena->account->range_bytes, range_bytes(r));
    end_generation(r);
    range *above = r->above ? table_at(r->above) : NULL;
    if (above && is_free(above)) {
        free_list_remove(arena, above);
        join(r, above);
    }
    range *below = r->below ? table_at(r->below) : NULL;
    if (below && is_free(below)) {
        free_list_remove(arena, below);
        join(below, r);
        r = below;
    }
    free_list_add(arena, r);
    bool last = atomic_fetch_sub(&arena->ranges, 1) == 1 && arena->closing;
    pthread_mutex_unlock(&arena->lock);
    if (last) destroy(arena);
}

/* ---- lists of lost ranges --------------------------------------------------------------------- */

void arena_list_lost(range *r) {
    vrange_arena *arena = r->arena;
    pthread_mutex_lock(&arena->lock);
    if (!r->listed) {
        r->listed = true;
        r->list_previous = arena->lost_last;
        r->list_next = 0;
        if (arena->lost_last) table_at(arena->lost_last)->list_next = r->index;
        else arena->lost_first = r->index;
        arena->lost_last = r->index;
        atomic_fetch_add(&arena->lost_count, 1);
    }
    pthread_mutex_unlock(&arena->lock);
}

/* The caller holds the arena's lock. */
void arena_unlist_lost(range *r) {
    vrange_arena *arena = r->arena;
    if (r->list_previous) table_at(r->list_previous)->list_next = r->list_next;
    else arena->lost_first = r->list_next;
    if (r->list_next) table_at(r->list_next)->list_previous = r->list_previous;
    else arena->lost_last = r->list_previous;
    r->list_previous = r->list_next = 0;
    atomic_fetch_sub(&arena->lost_count, 1);
    r->listed = false;
}

/* Finds the ranges that a fork made purged by searching the table. A list of them would have to be written
 * in the child, and every page that holds a part of it would be copied. */
static size_t find_unlisted(vrange_arena *arena, uint64_t *handles, size_t capacity) {
    size_t count = 0;
    for (; count < capacity && arena->unlisted_next < arena->unlisted_end; arena->unlisted_next++) {
        range *r = table_at(arena->unlisted_next);
        const uint64_t word = atomic_load(range_word(r));
        if (word_state(word) == PURGED && atomic_load(&r->arena) == arena && !r->listed)
            handles[count++] = range_handle(r, word);
    }
    return count;
}

size_t vrange_arena_lost(vrange_arena *arena, uint64_t *handles, size_t capacity) {
    if (!arena_has_lost(arena) && arena->unlisted_next >= arena->unlisted_end) return 0;
    size_t count = 0;
    gate_enter();
    pthread_mutex_lock(&arena->lock);
    while (count < capacity && arena->lost_first) {
        range *r = table_at(arena->lost_first);
        handles[count++] = range_handle(r, atomic_load(range_word(r)));
        arena_unlist_lost(r);
    }
    if (count == 0) count = find_unlisted(arena, handles, capacity);
    pthread_mutex_unlock(&arena->lock);
    gate_leave();
    return count;
}

/* ---- arenas themselves ------------------------------------------------------------------------ */

int vrange_arena_open(size_t bytes, vrange_account *account, vrange_arena **out) {
    const size_t page = os_page_bytes();
    const size_t pages = bytes / page + (bytes % page != 0);
    if (bytes == 0) return -EINVAL;
    if (pages > UINT32_MAX) return -ENOMEM;
    if (vrange_rung() == 0) return -EOPNOTSUPP;
    int result = scratch_prepare();
    if (result < 0) return result;
    result = -ENOMEM;
    gate_enter();
    vrange_arena *arena = blank_arena();
    char *base = arena ? os_reserve(pages * page) : NULL;
    range *whole = base ? table_take() : NULL;
    if (whole) {
        result = 0;
        arena->base = base;
        arena->pages = (uint32_t)pages;
        arena->account = account;
        whole->arena = arena;
        whole->first_page = 0;
        whole->pages = (uint32_t)pages;
        whole->below = whole->above = 0;
        free_list_add(arena, whole);
        tally(&account->reserved_bytes, pages * page);
        pthread_mutex_lock(&arenas.lock);
        arena->next = arenas.first;
        if (arenas.first) arenas.first->previous = arena;
        arenas.first = arena;
        pthread_mutex_unlock(&arenas.lock);
        *out = arena;
    } else {
        if (base) os_unreserve(base, pages * page);
        if (arena) give_blank_back(arena);
    }
    gate_leave();
    return result;
}

void arena_begin_closing(vrange_arena *arena) {
    /* Counting one range more keeps the arena while its ranges are freed. */
    pthread_mutex_lock(&arena->lock);
    arena->closing = true;
    atomic_fetch_add(&arena->ranges, 1);
    pthread_mutex_unlock(&arena->lock);
}

void arena_end_closing(vrange_arena *arena) {
    pthread_mutex_lock(&arena->lock);
    bool last = atomic_fetch_sub(&arena->ranges, 1) == 1;
    pthread_mutex_unlock(&arena->lock);
    if (last) destroy(arena);
}

void arena_count_requests(vrange_arena *arena, uint32_t count) {
    uint32_t requests =
        atomic_fetch_add_explicit(&arena->epoch_requests, count, memory_order_relaxed) + count;
    uint32_t due = REQUESTS_PER_RANGE_AND_EPOCH *
                   atomic_load_explicit(&arena->ranges, memory_order_relaxed);
    if (due < REQUESTS_PER_EPOCH_LEAST) due = REQUESTS_PER_EPOCH_LEAST;
    if (requests < due) return;
    /* The thread that resets the counter ends the epoch. */
    if (atomic_compare_exchange_strong(&arena->epoch_requests, &requests, 0))
        atomic_fetch_add(&arena->epoch, 1);
}

uint32_t vrange_arena_epoch(vrange_arena *arena) { return atomic_load(&arena->epoch); }

/* ---- fork ------------------------------------------------------------------------------------- */

void arenas_before_fork(void) {
    for (vrange_arena *arena = arenas.first; arena; arena = arena->next) {
        const size_t bytes = (size_t)arena->committed_pages * os_page_bytes();
        if (bytes) inherit_area(arena->base, bytes);
    }
}

/* A thread of the parent may have changed a range and not yet its count. So the counts are summed again from
 * the ranges. */
static void count_kept(void) {
    size_t count;
    const inherited_span *spans = inherited_spans(&count);
    for (size_t i = 0; i < count; i++) {
        if (!spans[i].range) continue;
        range *r = table_kept(spans[i].range);
        untally(&r->arena->account->purged_bytes, range_bytes(r));
        if (!word_pins(atomic_load(range_word(r)))) /* released while the fork looked for pins */
            stats_idle(r->arena->account, (int64_t)range_bytes(r));
    }
}

void arenas_after_fork(void) {
    for (vrange_arena *arena = arenas.first; arena; arena = arena->next) {
        vrange_account *account = arena->account; /* several arenas may have the same one */
        account->idle_bytes = account->offered_bytes = 0;
        account->purged_bytes = atomic_load(&account->range_bytes);
        arena->unlisted_next = 1;
        arena->unlisted_end = table_count();
    }
    stats_idle_bytes = stats_offered_bytes = 0;
    count_kept();
}

int arenas_register_again(int userfault) {
    if (userfault < 0) return 0;
    for (vrange_arena *arena = arenas.first; arena; arena = arena->next) {
        size_t bytes = (size_t)arena->committed_pages * os_page_bytes();
        int result = bytes ? os_userfault_register(userfault, arena->base, bytes) : 0;
        if (result < 0) return result;
    }
    return 0;
}
