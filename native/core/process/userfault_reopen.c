/* Mending, as one transaction: replaces a userfaultfd that other code closed.
 *
 * When the last descriptor of a userfaultfd is closed, the kernel forgets what was registered with it, and
 * from then on a missing page reads as zeros. Until everything is registered with a new one, a lost page
 * can't be detected. So the gate is closed, as for a fork: no thread is in the middle of pinning, filling or
 * growing, and a thread that comes to the gate meanwhile waits. Pins of idle ranges go on, as they need no
 * registration. Which pages the kernel took meanwhile, and which threads read zeros instead, can't be known.
 * So everything that was offered counts as lost.
 *
 * Touches of arrays can't wait at the gate, as their thread may be inside it. While the registration is half
 * done their system calls fail, and they try again. */
#include "base/userfault_closed.h"

#include <errno.h>
#include <stdbool.h>

#include "ranges/all_arenas.h"
#include "arrays/all_arrays.h"
#include "base/gate.h"
#include "os/os.h"
#include "ranges/owners.h"
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

/* Returns whether the error may go away. EBUSY: the old userfaultfd is still registered, because the thread
 * that closes it has not returned from the kernel yet. EBADF: other code has closed the new one already.
 * EMFILE, ENFILE: a descriptor may become free again. */
static bool may_pass(int result) {
    return result == -EBUSY || result == -EBADF || result == -EMFILE || result == -ENFILE;
}

static void mend_closed(void) {
    owners_all_change(); /* first: a child that has read zeros must not find the canary in order then */
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
