/* Reads the content of a range in an owner that is on the sentinel rung. */
#ifndef VRANGE_SENTINEL_AWAY_H
#define VRANGE_SENTINEL_AWAY_H

#include <stddef.h>
#include <stdint.h>

#include "ranges/owners.h"

/* Copies `bytes` from an address there, which is at the offset in the range. Returns what peer_read() returns.
 * The caller looks at the mark's `changed`, before and afterwards. */
int sentinel_read_away(const owner *of, const range *r, const range_mark *mark, uint64_t generation,
                       uint64_t from, size_t offset, void *to, size_t bytes);

#endif
