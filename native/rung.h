#ifndef VRANGE_RUNG_H
#define VRANGE_RUNG_H

#include <stdbool.h>
#include <stddef.h>

/* The userfaultfd every arena is registered with; -1 below the refault rung. Where somebody closed it,
 * a number that nobody has: by now the old one may be a file of theirs. */
int rung_userfault(void);

/* Whether the descriptor still does what it was opened for. Somebody may have closed it: a process
 * that makes itself a daemon closes all it has, and a lost page would then read as zeros. */
bool rung_holds(void);

/* A new descriptor, where the old one was closed by somebody (its number may be theirs by now). */
int rung_open_again(void);

/* No descriptor is to be had any more: from now on the runtime discards by itself. Ends the process
 * where arrays exist, which would read as zeros. */
void rung_fall(int error);

/* In the child of a fork: a descriptor of its own. -errno: content can't be told from zeros there. */
int rung_reopen(void);

/* In the child of a fork where that failed. Nothing is offered there yet, and what arrays lack is told
 * otherwise (array.h), so the child goes on. */
void rung_fall_after_fork(int error);

#endif
