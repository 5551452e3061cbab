/* Room: how much of the free memory a large copy may use.
 *
 * Without reservations each thread would find the same bytes free. So bytes that other threads have
 * reserved for their copies do not count. reserve/make_room.c makes the reservations, and evicts volatile
 * ranges for them. */
#define _GNU_SOURCE
#include "pressure/room_for_copy.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/amounts.h"
#include "pressure/headroom.h"
#include "counters/stats.h"
#include "os/os_thread.h"
#include "vrange.h"

#define MACHINE_AGE_NS 5000000u /* new: the copy of a large value follows at once */
#define TIGHT_BYTES (128ull << 20) /* what other threads may allocate while a copy is made */

static _Atomic uint64_t reserved; /* by threads that are storing now */
static pthread_mutex_t making_room = PTHREAD_MUTEX_INITIALIZER;

uint64_t room_free(uint64_t enough) {
    uint64_t below_limits;
    headroom_with_files(enough, &below_limits);
    const uint64_t machine = headroom_of_machine(MACHINE_AGE_NS), process = headroom_of_copy();
    uint64_t least = machine && machine < below_limits ? machine : below_limits;
    return lesser(process, least);
}

void vrange_room_give(uint64_t bytes) {
    uint64_t taken = atomic_load(&reserved);
    /* A child has forgotten the reservations of its parent. */
    while (!atomic_compare_exchange_weak(&reserved, &taken, above(taken, bytes))) {
    }
}

uint64_t room_reserved(void) { return atomic_load(&reserved); }

void room_reserve(uint64_t bytes) { tally(&reserved, bytes); }

bool room_is_tight(uint64_t bytes) {
    const uint64_t enough = 2 * bytes + atomic_load(&reserved) + TIGHT_BYTES;
    return room_free(enough) < enough;
}

void room_begin(void) { pthread_mutex_lock(&making_room); }

void room_end(void) { pthread_mutex_unlock(&making_room); }

void room_after_fork(void) {
    (void)os_lock_renew(&making_room);
    atomic_store(&reserved, 0);
    atomic_store(&stats_copying_bytes, 0);
}
