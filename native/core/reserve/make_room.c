/* Making room: whether a large value may be copied into an arena now.
 *
 * A store doubles what the caller holds, while the copy is made or for good. Near the limit that copy, and
 * not the program itself, would get the process killed. So a store of a large value first reserves the
 * bytes that it is going to write. It takes them from the bytes that are free after the least valuable
 * volatile ranges were evicted for it, minus a margin for everything else, minus what other threads have
 * reserved. */
#include <errno.h>
#include <pthread.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "pressure/room_for_copy.h"
#include "reserve/shed.h"
#include "vrange.h"

#define MARGIN_LEAST (8ull << 20)
#define MARGIN_MOST (64ull << 20)
#define MARGIN_SHARE 4 /* of the reserve, which is an eighth of the limit by default */

/* Taken inside the gate, with no range BUSY. */
static pthread_mutex_t making_room = PTHREAD_MUTEX_INITIALIZER;

static uint64_t margin(void) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    const uint64_t share = reserve.bytes / MARGIN_SHARE;
    return share < MARGIN_LEAST ? MARGIN_LEAST : share > MARGIN_MOST ? MARGIN_MOST
                                                                     : share;
}

int vrange_room_take(uint64_t bytes) {
    gate_enter();
    pthread_mutex_lock(&making_room);
    const uint64_t wanted = bytes + margin() + room_reserved();
    uint64_t left = room_free(wanted);
    if (left < wanted) {
        /* Evict nothing for a value that would not fit even then. */
        const uint64_t can_go = atomic_load(&stats_idle_bytes) + atomic_load(&stats_offered_bytes);
        if (left + can_go >= wanted) {
            shed_least(NULL, wanted - left, false);
            left = room_free(wanted);
        }
    }
    const bool fits = left >= wanted;
    if (fits) room_reserve(bytes);
    pthread_mutex_unlock(&making_room);
    gate_leave();
    return fits ? VRANGE_OK : -ENOMEM;
}
