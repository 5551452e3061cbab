/* Arithmetic with amounts that can't be negative. */
#ifndef VRANGE_BASE_AMOUNTS_H
#define VRANGE_BASE_AMOUNTS_H

#include <stdint.h>

static inline uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* By how much `amount` is above `bound`: 0 if it is not. */
static inline uint64_t above(uint64_t amount, uint64_t bound) { return amount > bound ? amount - bound : 0; }

#endif
