#ifndef VRANGE_RANGE_TABLE_H
#define VRANGE_RANGE_TABLE_H

#include "ranges/range_state.h"

/* The table of all descriptors. They are recycled and never unmapped, so that looking at a stale
 * handle is always safe. */
range *table_at(uint32_t index);
uint32_t table_count(void); /* every index is below it */
range *table_take(void);    /* NULL: no memory. word is FREE, the generation is kept */
void table_give(range *r);

/* Before fork, with the gate closed: names what is pinned to inherit.h. In the child, if that settled,
 * all other ranges are purged from then on. */
void table_before_fork(void);
void table_after_fork_in_parent(void);
void table_after_fork_in_child(bool is_settled);

/* In the handler of the child: a range that was kept, without reading its chunk. */
range *table_kept(uint32_t index);

char *range_address(const range *r);
size_t range_bytes(const range *r);

/* Frees what is known of its lost pages. */
void range_forget_lost_pages(range *r);

#endif
