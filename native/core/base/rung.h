#ifndef VRANGE_RUNG_H
#define VRANGE_RUNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The userfaultfd every arena is registered with; -1 below the refault rung. Where somebody closed it,
 * a number that nobody has: by now the old one may be a file of theirs. */
int rung_userfault(void);
bool rung_has_userfault(void);

/* Whether the descriptor is still ours, and what is registered with it still told when it is missing.
 * Somebody may have closed it: a process that makes itself a daemon closes all it has, and a lost page
 * would then read as zeros. That a page is there counts only if this is true afterwards. */
bool rung_holds(void);

/* The two ends of mending (mend.c): a new descriptor; and, once everything is registered with it, the
 * page that rung_holds asks for. */
int rung_mend_begin(void);
int rung_mend_end(void);
/* Changes at both ends. What failed while it changed may be tried again. */
uint64_t rung_mends(void);

/* No descriptor is to be had any more: from now on a lower rung. With the gate closed. */
void rung_fall(int error);

/* MADV_FREE failed: falls to the eager rung if it is refused now. */
void rung_offer_failed(void);

/* On a lower rung that was fallen to: pages that are missing raise SIGBUS for ever, as another process
 * has the old descriptor. What is filled has to be mapped anew. */
bool rung_still_faults(void);

/* In the child of a fork: a descriptor of its own. -errno: content can't be told from zeros there. */
int rung_reopen(void);

/* In the child of a fork where that failed. Nothing is offered there yet, and what arrays lack is told
 * otherwise (array.h), so the child goes on. */
void rung_fall_after_fork(int error);

#endif
