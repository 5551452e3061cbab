/* The preloaded malloc, for the other files of this room. */
#ifndef VRANGE_MALLOC_MAKE_ROOM_H
#define VRANGE_MALLOC_MAKE_ROOM_H

/* The heap returns the address space that it has reserved and not used, and goes on with the rest. */
void malloc_make_room(void);

#endif
