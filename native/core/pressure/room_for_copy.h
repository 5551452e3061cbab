/* Whether there is room for a large copy of a caller's value. Called inside the gate. */
#ifndef VRANGE_ROOM_FOR_COPY_H
#define VRANGE_ROOM_FOR_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From this size on a store checks for room first; the reserve covers smaller values. */
#define ROOM_BYTES ((size_t)1 << 20)

/* Whether other threads could use up what a copy of `bytes` leaves, while it is made. */
bool room_is_tight(uint64_t bytes);

/* The bytes that are free below every limit and on the machine. Above `enough` the figure need not be
 * exact. */
uint64_t room_free(uint64_t enough);

/* Reservations for copies that are being made. vrange_room_give returns a reservation. */
uint64_t room_reserved(void);
void room_reserve(uint64_t bytes);

/* Around making one, so that no two threads find the same bytes free. Inside the gate, with no range BUSY. */
void room_begin(void);
void room_end(void);

/* In the child of a fork: the threads that were storing do not exist there. */
void room_after_fork(void);

#endif
