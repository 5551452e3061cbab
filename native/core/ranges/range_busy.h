/* Taking a range BUSY: how the files range_*.c have one to themselves while they talk to the kernel. */
#ifndef VRANGE_RANGE_BUSY_H
#define VRANGE_RANGE_BUSY_H

#include "ranges/range_table.h"

/* NULL where the handle never was one. */
static inline range *range_of(uint64_t handle) {
    uint32_t index = (uint32_t)handle;
    return index && index < table_count() ? table_at(index) : NULL;
}

static inline bool is_current(uint64_t word, uint64_t generation) {
    return (word & WORD_GENERATION) == generation && word_state(word) != FREE &&
           !(word & WORD_DOOMED);
}

/* For somebody else's BUSY to end. */
void wait_a_little(unsigned *waited);

/* VRANGE_OK: the range is BUSY and ours, *word what it was. VRANGE_HELD: it has pins. */
int take_busy(range *r, uint64_t generation, uint64_t *word);

static inline void put_state(range *r, uint64_t word, uint64_t state) {
    atomic_store(range_word(r), (word & ~WORD_STATE) | state);
}

#endif
