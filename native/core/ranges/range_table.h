/* The table that holds the descriptors of all ranges: from a handle's index to its range. */
#ifndef VRANGE_RANGE_TABLE_H
#define VRANGE_RANGE_TABLE_H

#include "ranges/range_state.h"

/* The table of all descriptors. Descriptors are recycled and never unmapped, so that looking up a stale
 * handle is always safe. */
range *table_at(uint32_t index);
uint32_t table_count(void); /* every index is below this */
range *table_take(void);    /* NULL: no memory. The word is FREE; its generation stays */
void table_give(range *r);

/* Before fork, with the gate closed: passes the pinned ranges to inherit.h, and makes the marks by which the
 * child sees later changes. Returns whether there is something to see. In the child, if inherit.h settled, all
 * other ranges are purged from then on; those of caches are away, with the owner of this level (owners.h). */
bool table_before_fork(void);
void table_after_fork_in_parent(void);
void table_after_fork_in_child(bool is_settled, uint32_t level);

/* In a child that was made without fork handlers: the holder of a lock does not exist. */
void table_renew_locks(void);
/* There a thread may be in the midst of a pin, and look at a word again without looking up its range. */
void table_read_all(void);

/* For the child's fork handler: returns a range that was kept, without reading its chunk. */
range *table_kept(uint32_t index);

char *range_address(const range *r);
size_t range_bytes(const range *r);

/* Frees the record of the range's lost pages. */
void range_forget_lost_pages(range *r);

#endif
