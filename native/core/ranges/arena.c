/* Arenas: reserved address space, cut into ranges, and joined again.
 *
 * The ranges of an arena, used and free, form a list in address order. Each free range is also in one of a
 * few hundred lists by size. The lists have two levels, the power of two and a sixteenth of it, and bitmaps
 * show which lists are not empty. Taking and returning a range are O(1). Free neighbours are joined at once,
 * and a range that is taken is never larger than requested. This is the two-level segregated fit of Masmano
 * et al. (2004), except that the bookkeeping lies outside the memory that it describes: a free range here has
 * no pages at all, and a header in it would cost one. */
#include "ranges/range_table.h"
#include "ranges/arena.h"
#include "ranges/all_arenas.h"
#include "ranges/arena_lost.h"
#include "ranges/arena_span.h"

#include <errno.h>

#include "base/gate.h"
#include "os/os.h"
#include "base/rung.h"
#include "base/scratch.h"

#define RETURN_TRIES 20
#define RETURN_PAUSE_NS 1000000u /* others hold the lock for microseconds, or for one system call */

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

/* ---- spans ------------------------------------------------------------------------------------ */

/* Adds a span, which is one free range. */
static bool add_span(vrange_arena *arena, uint32_t pages) {
    range *whole = table_take();
    if (!whole) return false;
    const uint32_t number = span_open(arena, pages);
    if (number == NO_SPAN) {
        table_give(whole);
        return false;
    }
    whole->arena = arena;
    whole->span = (uint8_t)number;
    whole->first_page = 0;
    whole->pages = pages;
    whole->below = whole->above = 0;
    arena->spans[number].lowest = whole->index;
    free_list_add(arena, whole);
    return true;
}

/* Returns the spans in which nothing is used. Only when address space is short: a cache that was emptied is
 * mostly filled again. */
static bool drop_empty_spans(vrange_arena *arena) {
    bool any = false;
    if (arena->closing || arena->torn) return false; /* a closing one returns them itself, after its walk */
    for (unsigned first = 0; first < FIRST_LEVELS; first++) {
        for (unsigned second = 0; second < SECOND_LEVELS; second++) {
            for (uint32_t index = arena->free_lists[first][second]; index;) {
                range *r = table_at(index);
                index = r->list_next;
                if (r->pages < arena->spans[r->span].pages) continue;
                free_list_remove(arena, r);
                span_close(arena, r->span);
                table_give(r);
                any = true;
            }
        }
    }
    return any;
}

/* Of all arenas that grow. A thread that holds the lock of another one may be waiting for ours. */
static bool drop_all_empty_spans(vrange_arena *arena) {
    bool any = drop_empty_spans(arena);
    for (vrange_arena *other = arenas_enter(); other; other = other->next) {
        if (other == arena || !other->grows || pthread_mutex_trylock(&other->lock) != 0) continue;
        any |= drop_empty_spans(other);
        pthread_mutex_unlock(&other->lock);
    }
    arenas_leave();
    return any;
}

/* Cuts off the free range at the end of each span. */
static void return_unused_of(vrange_arena *arena) {
    if (arena->closing) return;
    for (unsigned first = 0; first < FIRST_LEVELS; first++) {
        for (unsigned second = 0; second < SECOND_LEVELS; second++) {
            for (uint32_t index = arena->free_lists[first][second]; index;) {
                range *r = table_at(index);
                index = r->list_next;
                if (r->above || r->pages == arena->spans[r->span].pages) continue;
                free_list_remove(arena, r);
                table_at(r->below)->above = 0;
                span_shorten(arena, r->span, r->first_page);
                table_give(r);
            }
        }
    }
    drop_empty_spans(arena);
}

static bool return_unused_of_those_at_rest(void) {
    bool all = true;
    for (vrange_arena *arena = arenas_enter(); arena; arena = arena->next) {
        if (!arena->grows) continue;
        if (pthread_mutex_trylock(&arena->lock) != 0) {
            all = false; /* its holder may wait for the list */
            continue;
        }
        return_unused_of(arena);
        pthread_mutex_unlock(&arena->lock);
    }
    arenas_leave();
    return all;
}

void arenas_return_unused(void) {
    for (int tries = 0; tries < RETURN_TRIES; tries++) {
        if (return_unused_of_those_at_rest()) return;
        os_sleep_ns(RETURN_PAUSE_NS);
    }
}

static bool grow(vrange_arena *arena, uint32_t pages) {
    for (bool is_last = false;; is_last = true) {
        const uint32_t next = span_next_pages(arena, pages);
        if (next && (add_span(arena, next) || (next > pages && add_span(arena, pages)))) return true;
        if (is_last || !drop_all_empty_spans(arena)) return false;
    }
}

/* ---- taking and returning ranges -------------------------------------------------------------- */

int arena_take(vrange_arena *arena, uint32_t pages, range **out) {
    pthread_mutex_lock(&arena->lock);
    int result = -ENOMEM;
    const bool is_open = !arena->closing && !arena->torn;
    range *r = is_open ? find_free(arena, pages) : NULL;
    if (!r && arena->grows && is_open && grow(arena, pages)) r = find_free(arena, pages);
    if (r) {
        result = span_commit(&arena->spans[r->span], (uint64_t)r->first_page + pages);
        range *rest = result == 0 && r->pages > pages ? table_take() : NULL;
        if (result == 0 && r->pages > pages && !rest) result = -ENOMEM;
        if (result == 0) {
            free_list_remove(arena, r);
            if (rest) {
                rest->arena = arena;
                rest->span = r->span;
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
            atomic_store(&r->inherited, false);
            atomic_store(&r->shared, false);
            atomic_fetch_add(&arena->ranges, 1);
            aging_add(arena_aging(arena), r->pages);
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
    if (r->arena->walk == gone_above->index) r->arena->walk = r->index;
    table_give(gone_above);
}

static bool is_free(const range *r) { return word_state(atomic_load(range_word(r))) == FREE; }

static void destroy(vrange_arena *arena) {
    arenas_remove(arena); /* first, so that no other thread finds it when it looks for empty spans */
    for (unsigned first = 0; first < FIRST_LEVELS; first++) {
        for (unsigned second = 0; second < SECOND_LEVELS; second++) {
            for (uint32_t index = arena->free_lists[first][second]; index;) {
                range *r = table_at(index);
                index = r->list_next;
                table_give(r);
            }
        }
    }
    for (uint32_t number = 0; number < SPANS_MOST; number++) {
        if (arena->spans[number].pages) span_close(arena, number);
    }
    arenas_give_blank(arena);
}

void arena_give(range *r) {
    vrange_arena *arena = r->arena;
    pthread_mutex_lock(&arena->lock);
    if (r->listed && !arena->torn) arena_unlist_lost(r);
    aging_remove(arena_aging(arena), r->pages);
    untally(&arena->account->ranges, 1);
    untally(&arena->account->range_bytes, range_bytes(r));
    end_generation(r);
    if (arena->torn) {
        atomic_fetch_sub(&arena->ranges, 1);
        pthread_mutex_unlock(&arena->lock);
        return;
    }
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

/* ---- arenas themselves ------------------------------------------------------------------------ */

static int open_arena(uint64_t pages, bool grows, vrange_account *account, vrange_arena **out) {
    if (vrange_rung() == 0) return -EOPNOTSUPP;
    int result = scratch_prepare();
    if (result < 0) return result;
    gate_enter();
    vrange_arena *arena = arenas_take_blank();
    if (arena) {
        arena->account = account;
        arena->grows = grows;
        arena->most_pages = pages;
    }
    if (arena && (grows || add_span(arena, (uint32_t)pages))) {
        arenas_add(arena);
        *out = arena;
    } else {
        if (arena) arenas_give_blank(arena);
        result = -ENOMEM;
    }
    gate_leave();
    return result;
}

static uint64_t pages_of(size_t bytes) { return bytes / os_page_bytes() + (bytes % os_page_bytes() != 0); }

int vrange_arena_open(size_t bytes, vrange_account *account, vrange_arena **out) {
    if (bytes == 0) return -EINVAL;
    if (pages_of(bytes) > UINT32_MAX) return -ENOMEM;
    return open_arena(pages_of(bytes), false, account, out);
}

int vrange_arena_open_growing(size_t bytes_most, vrange_account *account, vrange_arena **out) {
    return bytes_most ? open_arena(pages_of(bytes_most), true, account, out) : -EINVAL;
}

int vrange_arena_can_hold(vrange_arena *arena, size_t bytes) {
    const uint64_t pages = pages_of(bytes);
    if (pages > UINT32_MAX) return 0;
    pthread_mutex_lock(&arena->lock);
    bool can = false;
    for (uint32_t number = 0; number < SPANS_MOST && !can && !arena->torn; number++)
        can = arena->spans[number].pages >= pages;
    if (!can && arena->grows && !arena->torn) {
        can = span_next_pages(arena, (uint32_t)pages) > 0 ||
              (drop_all_empty_spans(arena) && span_next_pages(arena, (uint32_t)pages) > 0);
    }
    pthread_mutex_unlock(&arena->lock);
    return can;
}

void arena_end_closing(vrange_arena *arena) {
    pthread_mutex_lock(&arena->lock);
    bool last = atomic_fetch_sub(&arena->ranges, 1) == 1 && !arena->torn;
    pthread_mutex_unlock(&arena->lock);
    if (last) destroy(arena);
}
