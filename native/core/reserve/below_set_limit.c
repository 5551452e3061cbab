/* Below a limit on the resident set nothing is offered, because no kernel reclaims anything there. Memory is
 * kept free instead, by discarding: the process can grow by it before the next look. If the judge does not
 * count offered bytes, offering is enough, and the kernel takes them when it needs memory itself. */
#define _GNU_SOURCE
#include "reserve/below_set_limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "arrays/all_arrays.h"
#include "arrays/array_places.h"
#include "counters/stats.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "pressure/headroom.h"
#include "pressure/memory_limits.h"
#include "reserve/offer.h"
#include "reserve/shed.h"

#define LEAST (4ull << 20)
#define MOST_SHARE 4    /* of the limit */
#define MISSING_SHARE 16 /* this share may be missing */
#define MORE_SHARE 8    /* so much more is discarded at once, as each time all ranges are ranked */
#define BUDGET_LEAST ((int64_t)1 << 20)
#define BUDGET_SHARE 4 /* of what is left: the program allocates as well */
#define FRUITLESS_BYTES (1u << 20)
#define FRUITLESS_NS 1000000000u

static struct {
    pthread_mutex_t lock; /* inside the gate */
    _Atomic uint64_t limit; /* of the last look */
    _Atomic int64_t budget; /* what may still be stored before the next look */
    _Atomic uint64_t reserve_bytes;
} stores = {.lock = PTHREAD_MUTEX_INITIALIZER};

kept_free look_below_set_limit(uint64_t reserve_bytes) {
    uint64_t limit;
    kept_free k = {.left = headroom_below_set(&limit)};
    atomic_store(&stores.reserve_bytes, reserve_bytes);
    k.wanted = reserve_bytes > LEAST ? reserve_bytes : LEAST;
    if (k.wanted > limit / MOST_SHARE) k.wanted = limit / MOST_SHARE;
    k.is_short = k.left < k.wanted - k.wanted / MISSING_SHARE;
    k.by_offering = limits_set_spares_offered() && offer_is_possible();
    return k;
}

/* If arrays had nothing to return, they are not asked again for a while: that looks at every block. */
static void return_arrays(uint64_t left) {
    static uint64_t not_before_ns;
    const uint64_t now = os_now_ns();
    if (!arrays_exist() || now < not_before_ns) return;
    arrays_return();
    if (headroom_below_set(NULL) < left + FRUITLESS_BYTES) not_before_ns = now + FRUITLESS_NS;
}

static uint64_t missing_from(const kept_free *k) { return k->wanted - k->left + k->wanted / MORE_SHARE; }

/* Blocks of arrays have no rank, so they go last. */
uint64_t return_memory(const kept_free *below_set) {
    if (!below_set->is_short) return 0;
    const uint64_t missing = missing_from(below_set);
    if (below_set->by_offering) {
        if (atomic_load(&stats_idle_bytes) < missing) return_arrays(below_set->left);
        return missing;
    }
    const bool has_ranges = atomic_load(&stats_idle_bytes) + atomic_load(&stats_offered_bytes) > 0;
    if (!has_ranges || shed_least(NULL, missing, false) < missing) return_arrays(below_set->left);
    return 0;
}

uint64_t return_before_use(size_t bytes) {
    const uint64_t limit = limits_set_bytes();
    if (limit == 0) return 0;
    const bool is_spent = atomic_fetch_sub(&stores.budget, (int64_t)bytes) <= (int64_t)bytes;
    if (!is_spent && limit == atomic_load(&stores.limit)) return 0;
    uint64_t to_offer = 0;
    pthread_mutex_lock(&stores.lock);
    /* Unless another thread has looked meanwhile. */
    if (atomic_load(&stores.budget) <= 0 || limit != atomic_load(&stores.limit)) {
        const kept_free now = look_below_set_limit(atomic_load(&stores.reserve_bytes));
        if (now.is_short && now.by_offering) to_offer = missing_from(&now);
        else if (now.is_short) shed_least(NULL, missing_from(&now), false);
        const uint64_t left = headroom_below_set(NULL) / BUDGET_SHARE;
        atomic_store(&stores.budget, left < (uint64_t)BUDGET_LEAST ? BUDGET_LEAST : (int64_t)left);
        atomic_store(&stores.limit, limit);
    }
    pthread_mutex_unlock(&stores.lock);
    return to_offer;
}

void below_set_renew_lock(void) { (void)os_lock_renew(&stores.lock); }
