/* The owners of what this process did not inherit: the processes that it was forked from, and what each of
 * them counts for its children.
 *
 * The child of a fork inherits pinned ranges only (inherit.h). The other ranges of a cache stay with their
 * owner: they are away, and the child reads them there (range_away.c). A range is as it was at the fork if the
 * owner has not changed it since. For that the owner numbers its forks, and a mark of each range has the number
 * of the last fork before the range last changed. The marks lie in memory that the children share. A child
 * that was born in the fork with number N trusts ranges that are marked with a smaller number. */
#ifndef VRANGE_OWNERS_H
#define VRANGE_OWNERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "peers/peer.h"
#include "ranges/range_state.h"

#define NO_OWNER OWNERS_MOST /* as a level: its content can't be read anywhere */

typedef struct {
    peer process;
    uint32_t born;              /* the number of the fork in which the child was made */
    _Atomic uint32_t *all;      /* a mark for all ranges of the owner */
    _Atomic bool is_over;       /* nothing can be read there any more */
} owner;

/* Before fork, with the gate closed. False: the child will read nothing here. */
bool owners_before_fork(void);
/* In the child: adds the parent. Returns its level, or NO_OWNER. */
uint32_t owners_after_fork(bool leaves_ranges);

owner *owner_at(uint32_t level);

/* How many owners are over. Ranges that are away there are lost. */
extern _Atomic uint32_t owners_over;
void owner_ends(owner *which);

/* Whether a range that is PURGED here, by its word, is lost: it is not away, or its owner is over. */
bool owners_have_lost(uint64_t word);

/* Whether the owner has not changed the range that has this mark. Look after reading as well. */
bool owner_still_has(const owner *of, const range_mark *mark);

/* In an owner: all ranges may change now, and children must not read them any more. */
void owners_all_change(void);

#endif
