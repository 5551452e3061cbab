/* Demand: what is asked for now will be asked for again in a moment.
 *
 * A page that the kernel has to take from the reserve costs it three microseconds: it looks for the
 * page's mappings, unmaps it, and tells every processor. Given back by ourselves, a range at a time,
 * it costs an eighth of that. So while the process asks for memory, as much as it asked for between two
 * looks is given back ahead of the next, in the order in which the kernel would take it. That lies free
 * for a moment, which costs hits; so what is wanted follows what is asked for, and is forgotten soon.
 *
 * It is this process's own memory that is looked at, not the usage of its cgroup. That grows by files
 * that are read, too, and a cache that gave way to them would end as page cache. */
#include "demand.h"

#define FORGOTTEN_NS 150000000ull

uint64_t demand_look(demand *d, uint64_t held_bytes, uint64_t gone, uint64_t now_ns) {
    const uint64_t passed_ns = now_ns - d->looked_ns;
    uint64_t asked = 0, remembered = 0;
    if (d->looked_ns && held_bytes + gone > d->held_bytes) asked = held_bytes + gone - d->held_bytes;
    if (passed_ns < FORGOTTEN_NS)
        remembered = (uint64_t)((double)d->wanted * (1.0 - (double)passed_ns / (double)FORGOTTEN_NS));
    d->wanted = asked > remembered ? asked : remembered;
    d->held_bytes = held_bytes;
    d->looked_ns = now_ns;
    return d->wanted;
}
