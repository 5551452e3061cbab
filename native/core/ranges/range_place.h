/* Where a range lies, for other processes that read it. */
#ifndef VRANGE_RANGE_PLACE_H
#define VRANGE_RANGE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *address;
    size_t bytes;
    const _Atomic uint64_t *word; /* the range's state */
    uint64_t generation;          /* of the range, as it stands in that word */
} range_place;

/* Where the range lies as long as its word has the same generation, and says that its content is there.
 * VRANGE_GONE if it was freed or is purged. */
int range_where(uint64_t handle, range_place *out);

/* Whether a word that was read says that the range of this generation had its content then. What was offered
 * counts only where a missing page can be told from zeros. */
bool range_was_there(uint64_t word, uint64_t generation, bool offered_counts);

#endif
