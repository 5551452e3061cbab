/* Expiry: which entries have expired, without a look at all of them. */
#ifndef VRANGE_CACHE_EXPIRY_H
#define VRANGE_CACHE_EXPIRY_H

#include "python/cache/index.h"

typedef struct {
    uint64_t at_ns;
    entry_no number;
    uint32_t stamp;
} deadline;

typedef struct {
    deadline *heap;
    uint32_t count, room;
} deadlines;

/* Adds the entry's deadline, if it has one. Without memory the entry expires only when it is looked up. */
void expiry_note(deadlines *all, const cache_index *index, entry_no number);

/* An expired entry; 0: none. */
entry_no expiry_next(deadlines *all, const cache_index *index, uint64_t now_ns);

void expiry_clear(deadlines *all);

#endif
