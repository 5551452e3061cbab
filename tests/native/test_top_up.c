/* The reserve is refilled while thousands of small values are cached.
 *
 * To rank those takes long, so that they may not be ranked again for a while. A burst that takes a little of the
 * reserve at each look, too little to count as a burst, must not use the reserve up meanwhile. */
#include <stdbool.h>

#include "base/gate.h"
#include "check.h"
#include "counters/stats.h"
#include "reserve/offer.h"

#define VALUE_BYTES ((size_t)16 << 10)
#define VALUES 4096u
#define COST_NS 1000u
#define WANTED (8 * MIB)
#define TAKEN (WANTED / 10) /* at each look */
#define LOOKS 60u           /* after those, most of the values are gone */
#define RANKING_NS (1000 * 1000000000ull) /* the victims are not old again before the test has ended */

static vrange_arena *arena;
static uint64_t handles[VALUES];
static victims ranked;

static void cache_small_values(void) {
    vrange_account *account;
    arena = open_arena(2 * VALUES * VALUE_BYTES, &account);
    for (uint32_t i = 0; i < VALUES; i++) {
        CHECK(vrange_allocate(arena, VALUE_BYTES, &handles[i]) == 0);
        write_words(vrange_address(handles[i]), VALUE_BYTES, i);
        /* Each is worth something else: of equals, a ranking has all. */
        CHECK(vrange_set_cost(handles[i], (uint64_t)(i + 1) * COST_NS) == VRANGE_OK);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
}

/* As many values as make `bytes`, of those that are offered, as if the kernel took them. */
static void take(uint64_t bytes) {
    const uint64_t left = stats_offered_bytes > bytes ? stats_offered_bytes - bytes : 0;
    for (uint32_t i = 0; i < VALUES && stats_offered_bytes > left; i++) {
        if (vrange_state(handles[i]) == VRANGE_STATE_OFFERED) CHECK(vrange_discard(handles[i]) == VRANGE_OK);
    }
}

static bool top_up(void) {
    gate_enter();
    const bool has_more = offer_top_up(&ranked, WANTED, 0, false);
    gate_leave();
    return has_more;
}

static int check_rung(const char *rung) {
    CHECK(setenv("VRANGE_RUNG", rung, 1) == 0);
    if (vrange_rung() < VRANGE_RUNG_SENTINEL) return 0; /* this machine does not allow it */
    cache_small_values();
    vrange_reserve_stop(); /* this test takes the turns itself */
    top_up();
    CHECK(stats_offered_bytes >= WANTED);
    CHECK(ranked.rankings == 1);
    ranked.ranking_ns = RANKING_NS; /* as on a busy machine, with more values */

    /* While hits take little back from the reserve, nothing is ranked for that. */
    take(WANTED / 4);
    top_up();
    CHECK(ranked.rankings == 1 && stats_offered_bytes >= WANTED / 2);

    uint64_t least = WANTED;
    for (uint32_t look = 0; look < LOOKS; look++) {
        take(TAKEN);
        top_up();
        ranked.ranking_ns = RANKING_NS;
        if (stats_offered_bytes < least) least = stats_offered_bytes;
    }
    CHECK(least + TAKEN >= WANTED / 2);
    CHECK(ranked.rankings < LOOKS / 2); /* a ranking costs the same however little is missing */
    return 0;
}

int main(void) {
    const char *const rungs[] = {"refault", "sentinel"};
    check_rungs(rungs, sizeof rungs / sizeof *rungs, check_rung);
    return 0;
}
