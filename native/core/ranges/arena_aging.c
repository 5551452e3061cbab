/* How an arena's uses age: by the clock of all arenas together, or by its own (aging.h). */
#include "ranges/arena_state.h"

uint32_t vrange_arena_epoch(vrange_arena *arena) { return aging_epoch(arena_aging(arena)); }

void vrange_arena_age_alone(vrange_arena *arena) {
    aging_start(&arena->own_aging);
    atomic_store_explicit(&arena->ages_alone, true, memory_order_release);
}

void vrange_arena_set_aging(vrange_arena *arena, uint32_t pace, int keeps) {
    aging_set(arena_aging(arena), pace, keeps != 0);
}

void vrange_arena_competing(vrange_arena *arena, uint32_t *ranges, uint64_t *pages) {
    aging *clock = arena_aging(arena);
    *ranges = atomic_load_explicit(&clock->ranges, memory_order_relaxed);
    *pages = atomic_load_explicit(&clock->pages, memory_order_relaxed);
}
