/* The list of an arena's lost ranges; see arena_lost.h. */
#include "ranges/arena_lost.h"

#include "base/gate.h"
#include "ranges/owners.h"
#include "ranges/range_table.h"

/* ---- lists of lost ranges --------------------------------------------------------------------- */

void arena_list_lost(range *r) {
    vrange_arena *arena = r->arena;
    pthread_mutex_lock(&arena->lock);
    if (!r->listed && !arena->torn) {
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
        if (word_state(word) == PURGED && owners_have_lost(word) && atomic_load(&r->arena) == arena &&
            !r->listed)
            handles[count++] = range_handle(r, word);
    }
    return count;
}

/* Since an owner is over, what is away there is lost too. */
static void search_again(vrange_arena *arena) {
    const uint32_t over = atomic_load(&owners_over);
    if (arena->seen_over == over) return;
    arena->seen_over = over;
    arena->unlisted_next = 1;
}

size_t vrange_arena_lost(vrange_arena *arena, uint64_t *handles, size_t capacity) {
    const bool has_unlisted =
        arena->unlisted_next < arena->unlisted_end || arena->seen_over != atomic_load(&owners_over);
    if (!arena_has_lost(arena) && !has_unlisted) return 0;
    size_t count = 0;
    gate_enter();
    pthread_mutex_lock(&arena->lock);
    search_again(arena);
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
