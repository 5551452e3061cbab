/* Demand: a process that asks for memory now will ask again in a moment.
 *
 * A page that the kernel has to reclaim from the reserve costs 3 µs: it finds the page's mappings, unmaps
 * it, and interrupts every processor. A page that vrange itself discards, a range at a time, costs an eighth
 * of that. So while the process asks for memory, vrange discards, before the next look, as much as the process
 * recently asked for between two looks, in the order in which the kernel would reclaim. Discarded memory lies
 * free for a moment, and that costs hits. So the wanted amount follows the demand, and is forgotten soon.
 *
 * vrange looks at this process's own memory, not at the usage of its cgroup. That usage also grows when
 * files are read, and a cache that gave way to files would end as page cache. */
#include "reserve/demand.h"

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
