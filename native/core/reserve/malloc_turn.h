/* The caretaker's turn in a process that uses vrange for malloc alone. */
#ifndef VRANGE_MALLOC_TURN_H
#define VRANGE_MALLOC_TURN_H

#include <stdint.h>

/* Offers freed blocks. Returns how long the thread may sleep. Inside the gate. */
uint64_t malloc_turn(uint64_t slept_ns);

#endif
