/* How long the caretaker sleeps between two turns: between a sixteenth of a tick and a second.
 *
 * While the kernel takes from the reserve, the next look comes before it has taken much. Otherwise a look comes
 * every tick, and less often the more is free: whatever allocates at full speed needs some time to use it up.
 * Once nothing has changed for a second, the thread sleeps for as long as it takes to use up what is free, or
 * for a second if the kernel wakes it in time (pressure/alarm.c). Threads that store or allocate wake it too.
 *
 * An alarm may come as late as when the kernel begins to reclaim. Then there must be something to reclaim, or
 * the process is killed before this thread has run. So the thread offers the reserve before it relies on such
 * an alarm, and takes it back if the alarm came because files were read. */
#include "reserve/turn_interval.h"

#include <stdatomic.h>

#include "arrays/array_places.h"
#include "base/amounts.h"
#include "base/caretaker.h"
#include "counters/stats.h"
#include "os/os.h"
#include "pressure/alarm.h"
#include "pressure/watcher.h"
#include "reserve/rank.h"

#define SLEEP_NS_MOST 20000000u
#define SLEEP_BYTES (64ull << 20) /* more than one thread allocates meanwhile */
#define QUIET_AFTER_NS 1000000000u
#define QUIET_SLEEP_NS 1000000000u
#define QUIET_BYTES (8ull << 30) /* more than two threads allocate meanwhile */
#define MACHINE_SHARE 32 /* of what is free on the machine; a smaller change is not reported */
#define QUIET_SHARE 16 /* of the reserve: using less is no change, and a reserve that lacks less is whole */
#define TAKEN_SHARE 32           /* of the reserve, which the kernel takes until the next look */
#define KEPT_FREE_LOOKS 4        /* a tick, near the limit */
#define HURRIES_MOST 16          /* a tick */

/* What the thread found when something had last changed. Only the thread uses it. */
static struct {
    uint64_t idle, offered, below_limits, since_ns;
    uint64_t of_machine; /* when the watcher was last roused for it */
} quiet;

void rest_forget(void) { quiet.since_ns = 0; }

/* Whether nothing has been stored, pinned or released for a while, and no memory was used. A call means that
 * something is about to change. */
static bool is_quiet(bool was_called, const free_memory *now, uint64_t share) {
    const uint64_t idle = atomic_load(&stats_idle_bytes), offered = atomic_load(&stats_offered_bytes);
    const uint64_t time_ns = os_now_ns(), below = lesser(now->below_limits, now->below_set.left);
    const bool is_less = below < quiet.below_limits && quiet.below_limits - below > share;
    if (was_called || !quiet.since_ns || idle != quiet.idle || offered != quiet.offered || is_less) {
        quiet.idle = idle;
        quiet.offered = offered;
        quiet.below_limits = below;
        quiet.since_ns = time_ns;
    }
    if (below > quiet.below_limits) quiet.below_limits = below;
    return time_ns - quiet.since_ns >= QUIET_AFTER_NS;
}

/* Other processes change it all the time. */
static bool machine_has_moved(uint64_t of_machine) {
    const uint64_t then = quiet.of_machine, moved = of_machine > then ? of_machine - then : then - of_machine;
    if (moved <= then / MACHINE_SHARE) return false;
    quiet.of_machine = of_machine;
    return true;
}

/* The part of `longest` in which `bytes` are used up, if `most` are in all of it. */
static uint64_t part_of(uint64_t longest, uint64_t bytes, uint64_t most) {
    return bytes < most ? (uint64_t)((double)longest * (double)bytes / (double)most) : longest;
}

/* `unwatched` is what is left where the kernel gives no alarm. */
static uint64_t sleep_of_quiet(uint64_t below, uint64_t unwatched, uint64_t enough, uint64_t share,
                               bool *needs_offered) {
    const uint64_t lacks = above(enough / NEAR_RESERVES, atomic_load(&stats_offered_bytes));
    const alarm_kind alarm = alarm_set(enough);
    bool is_woken = alarm == ALARM_EARLY;
    if (alarm == ALARM_LATE) {
        is_woken = lacks <= share || !rank_offerable_bytes();
        *needs_offered = !is_woken;
    }
    return part_of(QUIET_SLEEP_NS, is_woken ? unwatched : lesser(below, unwatched), QUIET_BYTES);
}

/* If arrays exist, it is one tick: their blocks and the handler for them need every look. */
static uint64_t longest_sleep(bool quiet_now, const free_memory *now, uint64_t enough, uint64_t share,
                              bool *needs_offered) {
    const uint64_t tick = caretaker_tick_ns();
    /* Other processes may need half of what is free on the machine. */
    const uint64_t below = above(now->below_limits, enough);
    const uint64_t unwatched = above(lesser(now->of_machine / 2, now->below_set.left), enough);
    const uint64_t left = lesser(below, unwatched);
    const bool is_far = now->is_enough && left > 0;
    uint64_t most = tick;
    if (is_far && !arrays_exist()) {
        most += part_of(SLEEP_NS_MOST, left, SLEEP_BYTES);
        if (most > SLEEP_NS_MOST) most = SLEEP_NS_MOST;
        const uint64_t longer = quiet_now ? sleep_of_quiet(below, unwatched, enough, share, needs_offered) : 0;
        if (longer > most) most = longer;
    } else if (!is_far && !rank_offerable_bytes() && !atomic_load(&stats_offered_bytes)) {
        most = SLEEP_NS_MOST; /* nothing is volatile, or a child shares it */
    }
    return most > tick ? most : tick;
}

rest rest_after(uint64_t slept_ns, const free_memory *now, uint64_t reserve_bytes, uint64_t taken,
                bool in_a_hurry) {
    const uint64_t tick = caretaker_tick_ns(), least = tick / HURRIES_MOST, share = reserve_bytes / QUIET_SHARE;
    const bool quiet_now = is_quiet(slept_ns == 0, now, share);
    if (!quiet_now) watcher_rouse();
    if (machine_has_moved(now->of_machine)) watcher_rouse_of_machine();
    rest r = {.sleep_ns = least};
    if (in_a_hurry) return r;
    if (taken) {
        const uint64_t part = reserve_bytes / TAKEN_SHARE;
        const uint64_t enough = (uint64_t)((double)slept_ns * (double)part / (double)taken);
        r.sleep_ns = enough < least ? least : enough < tick ? enough
                                                            : tick;
        return r;
    }
    /* The kernel can take nothing in between. */
    if (!now->can_offer && now->is_near && !quiet_now) {
        r.sleep_ns = tick / KEPT_FREE_LOOKS;
        return r;
    }
    const uint64_t most =
        longest_sleep(quiet_now, now, NEAR_RESERVES * reserve_bytes, share, &r.needs_offered);
    r.sleep_ns = slept_ns < tick ? tick : 2 * slept_ns < most ? 2 * slept_ns
                                                              : most;
    return r;
}
