/* FNV-1a, used to tell whether a text has changed. */
#ifndef VRANGE_HASH_H
#define VRANGE_HASH_H

#include <stdint.h>

static inline uint64_t hash_of(const char *text) {
    uint64_t hash = 14695981039346656037ull;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
    return hash;
}

#endif
