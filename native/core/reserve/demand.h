/* How much memory this process asks for, from one look to the next. */
#ifndef VRANGE_DEMAND_H
#define VRANGE_DEMAND_H

#include <stdint.h>

typedef struct {
    uint64_t held_bytes, wanted, looked_ns; /* at the last look; looked_ns is 0 before the first */
} demand;

/* Returns how many bytes to have free until the next look: as many as were recently asked for between two
 * looks. `held_bytes` is what the process has. `gone` is what it lost since the last look without freeing
 * it; those bytes were asked for as well. */
uint64_t demand_look(demand *d, uint64_t held_bytes, uint64_t gone, uint64_t now_ns);

#endif
