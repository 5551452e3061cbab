/* Clearing: all entries leave at once, and their memory is freed in steps. */
#ifndef VRANGE_CACHE_CLEAR_H
#define VRANGE_CACHE_CLEAR_H

#include "python/cache/core.h"

#define CLEARED_AT_ONCE 500 /* entries that the clearing caller gives back itself */

/* Removes all entries, and gives back as many of them as takes a moment: true if some are left. May run
 * Python. */
bool clear_now(cache_core *self);

/* Gives back up to `most` cleared entries: true while some are left. May run Python. */
bool clear_some(cache_core *self, uint32_t most);

/* Visits, for the garbage collector, entries that are cleared and not given back yet. */
int clear_visit(const cache_core *self, visitproc visit, void *arg);

#endif
