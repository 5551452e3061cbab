/* How much memory this process asks for, from one look to the next. */
#ifndef VRANGE_DEMAND_H
#define VRANGE_DEMAND_H

#include <stdint.h>

typedef struct {
    uint64_t held_bytes, wanted, looked_ns; /* at the last look; looked_ns 0: there was none */
} demand;

/* What to have free until the next look: as much as was asked for between two looks a moment ago.
 * `held_bytes` is what the process has, `gone` what it lost since the last look though it did not let
 * go of it: that was asked for, too. */
uint64_t demand_look(demand *d, uint64_t held_bytes, uint64_t gone, uint64_t now_ns);

#endif
