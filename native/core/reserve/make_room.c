/* Making room: whether a large value may be copied into an arena now.
 *
 * A store doubles what the caller holds, while the copy is made or for good. Near the limit that copy, and
 * not the program itself, would get the process killed. So a store of a large value first reserves the
 * bytes that it is going to write. It takes them from the bytes that are free after the least valuable
 * volatile ranges were evicted for it, minus a margin for everything else, minus what other threads have
 * reserved. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "pressure/room.h"
#include "ranges/range_offer.h"
#include "reserve/rank.h"
#include "vrange.h"

#define MARGIN_LEAST (8ull << 20)
#define MARGIN_MOST (64ull << 20)
#define MARGIN_SHARE 4 /* of the reserve, which is an eighth of the limit by default */
#define SHED_PASSES 16 /* a pass ranks 65,536 ranges at most */

/* Taken inside the gate, with no range BUSY. */
static pthread_mutex_t making_room = PTHREAD_MUTEX_INITIALIZER;

static uint64_t margin(void) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    const uint64_t share = reserve.bytes / MARGIN_SHARE;
    return share < MARGIN_LEAST ? MARGIN_LEAST : share > MARGIN_MOST ? MARGIN_MOST : share;
}

static void shed(uint64_t bytes) {
    ranking least = {.items = NULL};
    uint64_t gone = 0;
    for (int pass = 0; pass < SHED_PASSES && gone < bytes; pass++) {
        const uint64_t before = gone;
        rank_least(&least, NULL, true, bytes - gone);
        for (size_t i = 0; i < least.count && gone < bytes; i++) {
            range *r = table_at(least.items[i].index);
            const uint64_t size = range_bytes(r);
            /* A BUSY range may be a large store, which this would have to wait for. */
            if (word_state(atomic_load(range_word(r))) == BUSY) continue;
            if (range_shed(r, least.items[i].generation)) gone += size;
        }
        if (gone == before) break;
    }
    free(least.items);
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
            shed(wanted - left);
            left = room_free(wanted);
        }
    }
    const bool fits = left >= wanted;
    if (fits) room_reserve(bytes);
    pthread_mutex_unlock(&making_room);
    gate_leave();
    return fits ? VRANGE_OK : -ENOMEM;
}
