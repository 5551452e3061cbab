/* Buffers for putting content together before it is mapped; to be had in a signal handler. */
#ifndef VRANGE_SCRATCH_H
#define VRANGE_SCRATCH_H

#include <stddef.h>

#define SCRATCH_BYTES (2u << 20)

/* Never NULL. The memory is not cleared. */
char *scratch_take(void);
void scratch_give(char *scratch);

/* A buffer that is one empty huge page, to be moved to its place as it is; NULL where none is to be
 * had now. What is in it when it is given back is gone. */
char *scratch_take_huge(void);
void scratch_give_huge(char *scratch);

/* Reserves the buffers: 0, or -ENOMEM. Before it, each take maps one. */
int scratch_prepare(void);

/* In the child of a fork, where whoever had one does not exist. */
void scratch_forget_owners(void);

#endif
