/* Takes a range BUSY. So the files range_*.c keep other threads away from a range while they make system
 * calls on it. */
#ifndef VRANGE_RANGE_BUSY_H
#define VRANGE_RANGE_BUSY_H

#include "ranges/range_table.h"

/* Returns the descriptor that the handle points to, whichever range it serves now. NULL: never a handle. */
static inline range *range_of(uint64_t handle) {
    uint32_t index = (uint32_t)handle;
    return index && index < table_count() ? table_at(index) : NULL;
}

static inline bool is_current(uint64_t word, uint64_t generation) {
    return (word & WORD_GENERATION) == generation && word_state(word) != FREE &&
           !(word & WORD_DOOMED);
}

/* Call in a loop that waits for another thread's BUSY to end. */
void wait_a_little(unsigned *waited);

/* VRANGE_OK: the range is BUSY and ours; *word is its word before that. VRANGE_HELD: it has pins. */
int take_busy(range *r, uint64_t generation, uint64_t *word);

/* The same without waiting. -EBUSY: another thread has it BUSY. A thread that has a BUSY range must not wait
 * for another one: the holder of that one may wait for the first. */
int try_busy(range *r, uint64_t generation, uint64_t *word);

static inline void put_state(range *r, uint64_t word, uint64_t state) {
    atomic_store(range_word(r), (word & ~WORD_STATE) | state);
}

#endif
