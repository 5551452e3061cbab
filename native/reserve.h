#ifndef VRANGE_RESERVE_H
#define VRANGE_RESERVE_H

/* In the child of a fork where all volatile ranges are purged: the queue and the ranking are of the
 * parent's ranges, and looking them up would read, and so copy, their words. */
void reserve_after_fork(void);

#endif
