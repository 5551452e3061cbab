/* Whether there is room for a large copy of what a caller has. Looked at inside the gate. */
#ifndef VRANGE_ROOM_H
#define VRANGE_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From here on storing asks for room first; what is smaller, the reserve makes up for. */
#define ROOM_BYTES ((size_t)1 << 20)

/* Whether other threads could use up what a copy of `bytes` leaves while it is made. */
bool room_is_tight(uint64_t bytes);

/* What is free below every limit and on the machine. Beyond `enough` it need not be exact. */
uint64_t room_free(uint64_t enough);

/* For copies that are made now. vrange_room_give returns what was reserved. */
uint64_t room_reserved(void);
void room_reserve(uint64_t bytes);

/* In the child of a fork: the threads that stored are not there. */
void room_after_fork(void);

#endif
