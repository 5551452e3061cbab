/* Demand: what is asked for now will be asked for again in a moment.
 *
 * A page that the kernel has to take from the reserve costs it three microseconds: it looks for the
 * page's mappings, unmaps it, and tells every processor. Given back by ourselves, a range at a time,
 * it costs a twentieth. So while memory is asked for, as much as went between two looks is given back
 * ahead of the next, in the order in which the kernel would take it. It lies free for a moment, which
 * costs hits; so what is wanted follows what is asked for, and is forgotten in a tenth of a second. */
#include "demand.h"

#define FORGOTTEN_NS 150000000ull

uint64_t demand_look(demand *d, uint64_t free_bytes, uint64_t taken, uint64_t now_ns) {
    const uint64_t grown = d->free_bytes > free_bytes ? d->free_bytes - free_bytes : 0;
    const uint64_t passed_ns = now_ns - d->looked_ns;
    const uint64_t asked = d->looked_ns ? grown + taken : 0;
    uint64_t remembered = 0;
    if (passed_ns < FORGOTTEN_NS)
        remembered = (uint64_t)((double)d->wanted * (1.0 - (double)passed_ns / (double)FORGOTTEN_NS));
    d->wanted = asked > remembered ? asked : remembered;
    d->free_bytes = free_bytes;
    d->looked_ns = now_ns;
    return d->wanted;
}
