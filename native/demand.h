/* How much memory the process and those beside it are asking for, from one look to the next. */
#ifndef VRANGE_DEMAND_H
#define VRANGE_DEMAND_H

#include <stdint.h>

typedef struct {
    uint64_t free_bytes, wanted, looked_ns; /* at the last look */
} demand;

/* What to have free until the next look: as much as went between two looks a moment ago. `free_bytes`
 * is what is left below the limit, `taken` what the kernel took of the reserve meanwhile. */
uint64_t demand_look(demand *d, uint64_t free_bytes, uint64_t taken, uint64_t now_ns);

#endif
