/* The preloaded malloc, for the other files of this room. */
#ifndef VRANGE_MALLOC_RETURN_UNUSED_H
#define VRANGE_MALLOC_RETURN_UNUSED_H

/* The heap returns the address space that it has reserved and not used, and goes on with the rest. */
void malloc_return_unused(void);

#endif
