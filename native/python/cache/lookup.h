/* Lookup: from a key to its value. */
#ifndef VRANGE_CACHE_LOOKUP_H
#define VRANGE_CACHE_LOOKUP_H

#include "python/cache/core.h"

enum {
    LOOKUP_FAILED = -1,
    LOOKUP_FOUND,
    LOOKUP_ABSENT,
    LOOKUP_UNDER_WAY,
};

/* What the caller does with a stale value. */
enum {
    STALE_IS_ABSENT, /* it can't compute: the value stays for callers that can */
    STALE_IS_TAKEN,  /* it has the value computed again */
    STALE_IS_OVER,   /* it computes */
};

typedef struct {
    uint8_t stale;    /* set by the caller */
    bool has_waited;  /* set by the caller: it waited for another's computation, so a hit counts as waited */
    bool is_quiet;    /* set by the caller: a hit is neither counted nor a use */
    PyObject *value;  /* found: a new reference */
    entry_no number;  /* under way */
    uint32_t stamp;   /* found: of the stale value; 0: it is fresh */
    int outcome;      /* absent or under way: what the request counts as */
    uint32_t version; /* absent: of the index that did not have the key; under way: not the index's */
} looked_up;

/* Counts a hit; the caller counts the other outcomes. May run Python. */
int core_look_up(cache_core *self, PyObject *key, key_hash hash, looked_up *out);

/* Whether a request for an absent key counts as a miss or as purged. */
int outcome_of_absence(const cache_core *self, key_hash hash);

/* Whether it is no longer fresh. */
bool entry_is_expired(const cache_core *self, entry_no number);

#endif
