/* The list of all arenas, and what fork and mending do to them. */
#define _GNU_SOURCE
#include "ranges/all_arenas.h"

#include <stdlib.h>
#include <string.h>

#include "base/inherit.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "ranges/range_table.h"

static struct {
    pthread_mutex_t lock;
    vrange_arena *first;
    vrange_arena *unused; /* never freed: a stale handle may still lead to one */
} arenas = {.lock = PTHREAD_MUTEX_INITIALIZER};

vrange_arena *arenas_take_blank(void) {
    pthread_mutex_lock(&arenas.lock);
    vrange_arena *arena = arenas.unused;
    if (arena) arenas.unused = arena->next;
    pthread_mutex_unlock(&arenas.lock);
    if (arena) memset(arena, 0, sizeof *arena);
    else arena = calloc(1, sizeof *arena);
    if (arena) pthread_mutex_init(&arena->lock, NULL);
    return arena;
}

void arenas_give_blank(vrange_arena *arena) {
    pthread_mutex_lock(&arenas.lock);
    arena->next = arenas.unused;
    arenas.unused = arena;
    pthread_mutex_unlock(&arenas.lock);
}

void arenas_add(vrange_arena *arena) {
    pthread_mutex_lock(&arenas.lock);
    arena->next = arenas.first;
    if (arenas.first) arenas.first->previous = arena;
    arenas.first = arena;
    pthread_mutex_unlock(&arenas.lock);
}

void arenas_remove(vrange_arena *arena) {
    pthread_mutex_lock(&arenas.lock);
    if (arena->previous) arena->previous->next = arena->next;
    else arenas.first = arena->next;
    if (arena->next) arena->next->previous = arena->previous;
    pthread_mutex_unlock(&arenas.lock);
}

bool arenas_exist(void) {
    pthread_mutex_lock(&arenas.lock);
    const bool exist = arenas.first != NULL;
    pthread_mutex_unlock(&arenas.lock);
    return exist;
}

vrange_arena *arenas_enter(void) {
    pthread_mutex_lock(&arenas.lock);
    return arenas.first;
}

void arenas_leave(void) { pthread_mutex_unlock(&arenas.lock); }

/* ---- fork ------------------------------------------------------------------------------------- */

void arenas_renew_locks(void) {
    (void)os_lock_renew(&arenas.lock);
    vrange_arena *previous = NULL;
    for (vrange_arena *arena = arenas.first; arena; arena = arena->next) {
        arena->previous = previous; /* a thread may have been between two of the links */
        previous = arena;
        if (!os_lock_renew(&arena->lock)) continue;
        arena->torn = true;
        arena->lost_first = arena->lost_last = 0;
        atomic_store(&arena->lost_count, 0);
    }
}

void arenas_before_fork(void) {
    for (vrange_arena *arena = arenas.first; arena; arena = arena->next) {
        for (const arena_span *span = arena->spans; span < arena->spans + SPANS_MOST; span++) {
            const size_t bytes = (size_t)span->committed_pages * os_page_bytes();
            if (bytes) inherit_area(span->base, bytes);
        }
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
        arena->unlisted_next = arena->away_next = 1;
        arena->unlisted_end = table_count();
    }
    stats_idle_bytes = stats_offered_bytes = 0;
    count_kept();
}

int arenas_register_again(int userfault) {
    if (userfault < 0) return 0;
    for (vrange_arena *arena = arenas.first; arena; arena = arena->next) {
        for (const arena_span *span = arena->spans; span < arena->spans + SPANS_MOST; span++) {
            const size_t bytes = (size_t)span->committed_pages * os_page_bytes();
            const int result = bytes ? os_userfault_register(userfault, span->base, bytes) : 0;
            if (result < 0) return result;
        }
    }
    return 0;
}
