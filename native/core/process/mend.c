/* Mending, as one transaction.
 *
 * When the last number of a userfaultfd is closed, the kernel forgets what was registered with it, and
 * from then on a missing page reads as zeros. Until a new one has everything registered, nothing tells
 * whether a page was lost. So the gate is closed, as for a fork: nobody is in the middle of pinning,
 * filling or growing, and who comes meanwhile waits. Pins of what was not offered go on: they need no
 * registration. Since nobody knows what the kernel took and who read zeros instead, all that was offered
 * counts as lost.
 *
 * Touches of arrays can't wait at the gate, as their thread may be inside. What they ask of a
 * registration that is half done fails, and they ask again. */
#include "base/mend.h"

#include <errno.h>
#include <stdbool.h>

#include "ranges/arena.h"
#include "arrays/array.h"
#include "base/gate.h"
#include "os/os.h"
#include "ranges/arena.h"
#include "ranges/range_offer.h"
#include "arrays/array_places.h"
#include "base/rung.h"
#include "counters/stats.h"

#define PASSING_TRIES 200
#define PASSING_WAIT_NS 1000000u

static int register_again(void) {
    int result = rung_mend_begin();
    if (result < 0) return result;
    result = arenas_register_again(rung_userfault());
    if (result == 0) result = arrays_register(rung_userfault());
    if (result == 0) result = rung_mend_end();
    return result < 0 && !rung_has_userfault() ? -EBADF : result;
}

/* EBUSY: the old one is still registered. Its number is closed, but the thread that does it is not back
 * from the kernel yet. EBADF: the new one was closed already. EMFILE: there may be a number again. */
static bool may_pass(int result) {
    return result == -EBUSY || result == -EBADF || result == -EMFILE || result == -ENFILE;
}

static void mend_closed(void) {
    int result = register_again();
    for (int tries = 0; may_pass(result) && tries < PASSING_TRIES; tries++) {
        os_sleep_ns(PASSING_WAIT_NS);
        result = register_again();
    }
    if (result < 0) {
        rung_fall(result, arrays_exist() ? ", and volatile arrays can't be read any more" : "");
        stats_rung_changed();
        arrays_bar();
    } else {
        arrays_forget_content();
    }
    ranges_shed_offered();
}

__attribute__((constructor)) static void offer_to_mend(void) { mend_register(mend_closed); }
