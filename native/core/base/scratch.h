/* Buffers in which content is put together before it is mapped; safe to take in a signal handler. */
#ifndef VRANGE_SCRATCH_H
#define VRANGE_SCRATCH_H

#include <stddef.h>

#define SCRATCH_BYTES (2u << 20)

/* Returns NULL if all buffers are in use and the process may map no more memory. The memory is not
 * cleared. */
char *scratch_take(void);
void scratch_give(char *scratch);

/* Returns a buffer that is one empty huge page, to be moved to its place as it is, or NULL if there is none
 * now. Its content is lost when it is returned. */
char *scratch_take_huge(void);
void scratch_give_huge(char *scratch);

/* Reserves the buffers. Returns 0 or -ENOMEM. Before this call, each take maps a buffer. */
int scratch_prepare(void);

/* For the child of a fork: the threads that held buffers do not exist there. */
void scratch_forget_owners(void);

#endif
