/* Room: whether a large value may be copied into an arena now.
 *
 * A store doubles what the caller holds, for as long as the copy takes or for good. Near the limit that
 * copy, and not the program, would be what the process is killed for. So a store of a large value first
 * reserves what it is going to write: bytes that are free, after the least valuable volatile ranges have
 * gone for it, less a margin for everybody else, less what other threads have reserved. Each thread by
 * itself would find the same bytes free. */
#include "pressure/room.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/gate.h"
#include "pressure/headroom.h"
#include "reserve/rank.h"
#include "counters/stats.h"
#include "vrange.h"

#define MARGIN_LEAST (8ull << 20)
#define MARGIN_MOST (64ull << 20)
#define MARGIN_SHARE 4 /* of the reserve, which is an eighth of the limit by default */
#define MACHINE_AGE_NS 5000000u
#define SHED_PASSES 16 /* one ranks 65,536 ranges at most */
#define TIGHT_BYTES (128ull << 20) /* what other threads ask for while a copy is made */

static struct {
    pthread_mutex_t lock; /* of looking and taking; not to be waited for with a range BUSY */
    _Atomic uint64_t taken;
} room = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t margin(void) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    const uint64_t share = reserve.bytes / MARGIN_SHARE;
    return share < MARGIN_LEAST ? MARGIN_LEAST : share > MARGIN_MOST ? MARGIN_MOST : share;
}

/* Beyond `enough` it need not be exact. */
static uint64_t free_now(uint64_t enough) {
    uint64_t below_limits;
    headroom_with_files(enough, &below_limits);
    const uint64_t machine = headroom_of_machine(MACHINE_AGE_NS);
    return machine && machine < below_limits ? machine : below_limits;
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
            /* One that is BUSY may be a large store, which would be waited for. */
            if (word_state(atomic_load(range_word(r))) == BUSY) continue;
            if (range_shed(r, least.items[i].generation)) gone += size;
        }
        if (gone == before) break;
    }
    free(least.items);
}

int vrange_room_take(uint64_t bytes) {
    gate_enter();
    pthread_mutex_lock(&room.lock);
    const uint64_t wanted = bytes + margin() + atomic_load(&room.taken);
    uint64_t left = free_now(wanted);
    if (left < wanted) {
        /* Nothing goes for a value that would not fit all the same. */
        const uint64_t can_go = atomic_load(&stats_idle_bytes) + atomic_load(&stats_offered_bytes);
        if (left + can_go >= wanted) {
            shed(wanted - left);
            left = free_now(wanted);
        }
    }
    const bool fits = left >= wanted;
    if (fits) tally(&room.taken, bytes);
    pthread_mutex_unlock(&room.lock);
    gate_leave();
    return fits ? VRANGE_OK : -ENOMEM;
}

void vrange_room_give(uint64_t bytes) {
    uint64_t taken = atomic_load(&room.taken);
    /* In a child it was forgotten. */
    while (!atomic_compare_exchange_weak(&room.taken, &taken, taken > bytes ? taken - bytes : 0)) {}
}

bool room_is_tight(uint64_t bytes) {
    const uint64_t enough = 2 * bytes + atomic_load(&room.taken) + TIGHT_BYTES;
    return free_now(enough) < enough;
}

void room_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    room.lock = fresh;
    atomic_store(&room.taken, 0);
    atomic_store(&stats_copying_bytes, 0);
}
