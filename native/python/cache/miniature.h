/* Miniatures: small simulations of a cache, which find the aging that serves its requests best. */
#ifndef VRANGE_CACHE_MINIATURE_H
#define VRANGE_CACHE_MINIATURE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct miniature miniature;

/* NULL without memory, or if the process has as many as it may. */
miniature *miniature_make(void);
void miniature_free(miniature *gone);

/* A request for a value that has a range of its own. */
typedef struct {
    uint32_t tag;   /* stands for the key: its hash, mixed with what tells caches apart */
    uint32_t pages;
    float cost;     /* of computing the value again */
    uint32_t times; /* how many requests it stands for */
} mini_request;

/* What the cache holds, and what the miniatures are scaled to. */
typedef struct {
    uint32_t ranges;
    uint64_t pages;
} mini_volume;

/* Whether requests for keys with this tag are simulated at all. */
static inline bool miniature_samples(const miniature *m, uint32_t tag);

/* How uses age: see vrange_arena_set_aging. */
typedef struct {
    uint32_t pace; /* in sixteenths of a request for each range and epoch */
    bool keeps;
} mini_aging;

/* Adapts the sample to what the cache holds. */
void miniature_fit(miniature *m, mini_volume of);

/* Adds a key whose value is there already, with the uses that it has. */
void miniature_seed(miniature *m, const mini_request *request);

/* Simulates a request. Returns the aging that serves best. */
mini_aging miniature_note(miniature *m, const mini_request *request, mini_volume of);

/* ---- for miniature_samples ---- */

struct miniature_sample {
    unsigned shift; /* one key in 1 << shift is sampled */
};

static inline bool miniature_samples(const miniature *m, uint32_t tag) {
    const unsigned shift = ((const struct miniature_sample *)m)->shift;
    return (uint64_t)tag >> (32 - shift) == 0;
}

#endif
