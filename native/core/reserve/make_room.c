/* Making room: whether a large value may be copied into an arena now.
 *
 * A store doubles what the caller holds, while the copy is made or for good. Near the limit that copy, and
 * not the program itself, would get the process killed. So a store of a large value first reserves the
 * bytes that it is going to write. It takes them from the bytes that are free after the least valuable
 * volatile ranges were evicted for it, minus a margin for everything else, minus what other threads have
 * reserved. */
#include <errno.h>

#include "base/gate.h"
#include "base/rung.h"
#include "counters/stats.h"
#include "pressure/headroom.h"
#include "pressure/memory_limits.h"
#include "pressure/room_for_copy.h"
#include "reserve/reserve.h"
#include "reserve/shed.h"
#include "vrange.h"

#define MARGIN_LEAST (8ull << 20)
#define MARGIN_MOST (64ull << 20)
#define MARGIN_SHARE 4 /* of the reserve, which is an eighth of the limit by default */

static uint64_t margin(void) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    const uint64_t share = reserve.bytes / MARGIN_SHARE;
    return share < MARGIN_LEAST ? MARGIN_LEAST : share > MARGIN_MOST ? MARGIN_MOST
                                                                     : share;
}

/* Frees memory by evicting, unless the value would not fit even then. Returns the bytes that are free. */
static uint64_t evict_for(uint64_t wanted, uint64_t left) {
    /* Where offered bytes do not count, evicting them frees nothing below that limit. */
    if (limits_set_spares_offered() && vrange_rung() != VRANGE_RUNG_EAGER && headroom_of_copy() <= left) {
        if (reserve_offer(wanted - left) > 0) left = room_free(wanted);
        if (left >= wanted || headroom_of_copy() <= left) return left;
    }
    const uint64_t can_go = atomic_load(&stats_idle_bytes) + atomic_load(&stats_offered_bytes);
    if (left + can_go < wanted) return left;
    shed_least(NULL, wanted - left, false);
    return room_free(wanted);
}

int vrange_room_take(uint64_t bytes) {
    gate_enter();
    room_begin();
    const uint64_t wanted = bytes + margin() + room_reserved();
    uint64_t left = room_free(wanted);
    if (left < wanted) left = evict_for(wanted, left);
    const bool fits = left >= wanted;
    if (fits) room_reserve(bytes);
    room_end();
    gate_leave();
    return fits ? VRANGE_OK : -ENOMEM;
}
