/* Free lists by size, in two levels: the power of two, and a sixteenth of it. Each level has a bitmap, so
 * that two instructions find a list with something large enough. This is the two-level segregated fit of
 * Masmano et al. (2004). */
#ifndef VRANGE_SIZE_CLASS_H
#define VRANGE_SIZE_CLASS_H

#include <stdint.h>

#define FIRST_LEVELS 33
#define SECOND_LEVELS 16
#define SAME_CLASS_TRIES 32 /* of the class that a size is in, whose places may be too small */

typedef struct {
    unsigned first, second;
} size_class;

/* Sizes are in pages, or in any other unit in which the owner of the lists counts. */
static inline size_class class_of(uint32_t pages) {
    if (pages < SECOND_LEVELS) return (size_class){0, pages};
    unsigned power = 31u - (unsigned)__builtin_clz(pages);
    return (size_class){power - 3, (pages >> (power - 4)) & (SECOND_LEVELS - 1)};
}

/* Returns the smallest class in which every place is large enough. */
static inline size_class class_that_fits(uint32_t pages) {
    if (pages >= SECOND_LEVELS) {
        unsigned power = 31u - (unsigned)__builtin_clz(pages);
        uint64_t rounded = (uint64_t)pages + (1u << (power - 4)) - 1;
        if (rounded > UINT32_MAX) return (size_class){FIRST_LEVELS, 0};
        pages = (uint32_t)rounded;
    }
    return class_of(pages);
}

/* Returns the lowest class from `c` on that the bitmaps show non-empty; first is FIRST_LEVELS if none is. */
static inline size_class class_not_empty(size_class c, uint64_t firsts, const uint16_t *seconds) {
    if (c.first >= FIRST_LEVELS) return c;
    unsigned found = seconds[c.first] & (~0u << c.second);
    if (!found) {
        firsts = c.first + 1 < FIRST_LEVELS ? firsts & (~0ull << (c.first + 1)) : 0;
        if (!firsts) return (size_class){FIRST_LEVELS, 0};
        c.first = (unsigned)__builtin_ctzll(firsts);
        found = seconds[c.first];
    }
    c.second = (unsigned)__builtin_ctz(found);
    return c;
}

#endif
