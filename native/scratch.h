/* Buffers for putting content together before it is mapped; to be had in a signal handler. */
#ifndef VRANGE_SCRATCH_H
#define VRANGE_SCRATCH_H

#include <stddef.h>

#define SCRATCH_BYTES (2u << 20)


/* Never NULL: waits while all are in use. The memory is not cleared. */
char *scratch_take(void);
void scratch_give(char *scratch);

/* 0, or -ENOMEM. To be called before the first take, outside of any signal handler. */
int scratch_prepare(void);

/* In the child of a fork, where whoever had one does not exist. */
void scratch_forget_owners(void);

#endif
