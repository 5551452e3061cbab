/* Ranks the victims, and exchanges one of them for a new range; see victims.h. */
#define _GNU_SOURCE
#include "reserve/victims.h"

#include "counters/tally.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "ranges/arena_state.h"
#include "ranges/worth.h"

#define STALE_VALUE 1.5f
#define RANKING_SHARE 50 /* at most one part in 50 of the time is spent on ranking */
#define LOOKS_FOR_SIZE 64 /* a store must not search for long */

void victims_rank(victims *v, uint64_t bytes) {
    /* Processor time, so that a thread that was kept from running does not rank later because of that. */
    const uint64_t start = os_thread_cpu_ns();
    rank_least(&v->least, NULL, 0, bytes);
    v->next = 0;
    v->ranked_at = os_now_ns();
    v->ranking_ns = os_thread_cpu_ns() - start;
    tally(&v->rankings, 1);
}

bool victims_are_old(const victims *v) { return os_now_ns() - v->ranked_at > RANKING_SHARE * v->ranking_ns; }

const candidate *victims_next(victims *v) {
    while (v->next < v->least.count) {
        const candidate *item = &v->least.items[v->next++];
        range *r = table_at(item->index);
        struct vrange_arena *arena = atomic_load(&r->arena);
        if (arena && value_of(r, arena) <= item->value * STALE_VALUE) return item;
    }
    return NULL;
}

static bool is_idle(const candidate *item) {
    const uint64_t word = atomic_load(range_word(table_at(item->index)));
    return (word & WORD_GENERATION) == item->generation && word_state(word) == RESIDENT && !word_pins(word);
}

const candidate *victims_find_like(victims *v, const range *fresh, float worth) {
    while (v->next < v->least.count && !is_idle(&v->least.items[v->next])) v->next++;
    const size_t left = v->least.count - v->next;
    const candidate *item = v->least.items + v->next;
    const candidate *end = item + (left < LOOKS_FOR_SIZE ? left : LOOKS_FOR_SIZE);
    for (; item < end && item->value <= worth; item++) {
        range *r = table_at(item->index);
        /* The new range is not idle, so it is none of them. */
        if (r->pages != fresh->pages || atomic_load(&r->arena) != fresh->arena) continue;
        if (is_idle(item) && value_of(r, fresh->arena) <= worth) return item;
    }
    return NULL;
}

void victims_forget(victims *v) {
    v->least.count = 0;
    v->next = 0;
    v->ranked_at = v->ranking_ns = 0;
}
