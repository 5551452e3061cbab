/* The gate that fork closes; see gate.h. */
#include "base/gate.h"

#include "os/os.h"

#define LOOK_AGAIN_NS 20000

gate_page gate;

static _Thread_local bool is_inside;

void gate_enter(void) {
    for (;;) {
        atomic_fetch_add(&gate.inside, 1);
        if (!atomic_load(&gate.is_closed)) break;
        atomic_fetch_sub(&gate.inside, 1);
        gate_wait();
    }
    is_inside = true;
}

bool gate_try_enter(void) {
    if (is_inside) return false;
    atomic_fetch_add(&gate.inside, 1);
    if (atomic_load(&gate.is_closed)) {
        atomic_fetch_sub(&gate.inside, 1);
        return false;
    }
    is_inside = true;
    return true;
}

void gate_wait(void) {
    while (atomic_load(&gate.is_closed)) os_sleep_ns(LOOK_AGAIN_NS);
}

void gate_leave(void) {
    is_inside = false;
    atomic_fetch_sub(&gate.inside, 1);
}

bool gate_step_out(void) {
    const bool was_inside = is_inside;
    if (was_inside) gate_leave();
    return was_inside;
}

void gate_close(void) {
    /* Another thread is forking too. */
    while (atomic_exchange(&gate.is_closed, true)) os_sleep_ns(LOOK_AGAIN_NS);
    while (atomic_load(&gate.inside)) os_yield();
}

void gate_open(void) { atomic_store(&gate.is_closed, false); }

void gate_open_in_child(void) {
    atomic_store(&gate.inside, 0);
    gate_open();
}

/* Where pages are larger, others' words lie on the same page. */
__attribute__((constructor)) static void wipe_in_children(void) {
    if (os_page_bytes() == GATE_PAGE_BYTES) os_wipe_on_fork(&gate, GATE_PAGE_BYTES);
}
