/* How large the reserve has to be while the kernel takes from it. */
#ifndef VRANGE_BURST_H
#define VRANGE_BURST_H

#include <stdint.h>

/* Returns how many bytes to have offered or free until the next look, at least `reserve_bytes`. `gone` is what
 * was used up of it since the last look. One thread at a time. */
uint64_t burst_reserve(uint64_t reserve_bytes, uint64_t gone, uint64_t now_ns);

/* In the child of a fork. */
void burst_forget(void);

#endif
