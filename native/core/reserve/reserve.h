/* Offering at once, for callers that can't wait for the caretaker's turn. */
#ifndef VRANGE_RESERVE_H
#define VRANGE_RESERVE_H

#include <stdint.h>

/* Offers the least valuable idle ranges until `bytes` of them are offered. Returns how many were; 0 on the
 * eager rung. Inside the gate, with no range BUSY, and without the reserve's turn. */
uint64_t reserve_offer(uint64_t bytes);

#endif
