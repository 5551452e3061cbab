#ifndef VRANGE_RUNG_H
#define VRANGE_RUNG_H

#include <stddef.h>

/* The userfaultfd every arena is registered with; -1 below the refault rung. */
int rung_userfault(void);

/* In the child of a fork: a descriptor of its own. -errno: content can't be told from zeros there. */
int rung_reopen(void);

#endif
