/* No threads of vrange during a fork, if the interpreter counts them.
 *
 * CPython 3.12 and later warn of a fork in a process with threads. They count those that the kernel counts,
 * once fork() has returned in the parent and before the parent's functions of os.register_at_fork run. So
 * the threads must not run again when fork() returns: the hooks of the interpreter say when. They may not
 * end long before it either. Between the two hooks and fork() other code runs, which may wait for a lock, and
 * meanwhile no thread would keep the reserve. */
#include "process/fork_pause.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/caretaker.h"
#include "base/gate.h"
#include "heap/heap_offer.h"
#include "pressure/alarm.h"
#include "vrange.h"

static _Atomic unsigned announced;
static _Atomic bool unannounced; /* an interpreter counts, but does not know of vrange */

void vrange_fork_begins(void) { atomic_fetch_add(&announced, 1); }

void vrange_fork_ended(void) {
    unsigned before = atomic_load(&announced);
    while (before && !atomic_compare_exchange_weak(&announced, &before, before - 1)) {}
    if (before == 1) caretaker_resume();
}

void fork_pause_always(void) { atomic_store(&unannounced, true); }

void pause_before_fork(void) {
    if (!atomic_load(&announced)) {
        if (!atomic_load(&unannounced) || !caretaker_is_running()) return;
        gate_enter();
        heap_offer(true); /* the thread ends, and the next freed block starts another one */
        gate_leave();
    }
    caretaker_pause();
    alarm_end(); /* the caretaker sets it again */
}

void pause_after_fork_in_parent(void) {
    if (atomic_load(&unannounced) && !atomic_load(&announced)) caretaker_resume_later();
}

void pause_after_fork_in_child(void) { atomic_store(&announced, 0); }
