#ifndef VRANGE_RESERVE_H
#define VRANGE_RESERVE_H

#include <stdbool.h>
#include "range.h"

/* True where no thread runs: whoever releases a range has to offer it at once. */
bool reserve_is_absent(void);

/* Offers one range now, on the caller's thread. */
void reserve_offer_now(range *r, uint64_t generation);

/* A range of this process was stored: the thread is started again in a child of a fork. */
void reserve_ensure(void);

/* Takes the thread's turn where that is late. Inside the gate, with no range BUSY. */
void reserve_help(void);

/* Before fork the thread is parked outside the gate by the gate itself; the child has none. */
void reserve_forget_thread(void);

#endif
