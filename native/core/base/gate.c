/* The gate that fork closes; see gate.h. */
#include "base/gate.h"

#include "os/os.h"

#define LOOK_AGAIN_NS 20000

/* Every pin reads this, so it has a cache line apart from the one that every slow call writes. */
_Alignas(64) _Atomic bool gate_closed;
static _Alignas(64) _Atomic int inside;

static _Thread_local bool is_inside;

void gate_enter(void) {
    for (;;) {
        atomic_fetch_add(&inside, 1);
        if (!atomic_load(&gate_closed)) break;
        atomic_fetch_sub(&inside, 1);
        gate_wait();
    }
    is_inside = true;
}

bool gate_try_enter(void) {
    if (is_inside) return false;
    atomic_fetch_add(&inside, 1);
    if (atomic_load(&gate_closed)) {
        atomic_fetch_sub(&inside, 1);
        return false;
    }
    is_inside = true;
    return true;
}

void gate_wait(void) {
    while (atomic_load(&gate_closed)) os_sleep_ns(LOOK_AGAIN_NS);
}

void gate_leave(void) {
    is_inside = false;
    atomic_fetch_sub(&inside, 1);
}

bool gate_step_out(void) {
    const bool was_inside = is_inside;
    if (was_inside) gate_leave();
    return was_inside;
}

void gate_close(void) {
    /* Another thread is forking too. */
    while (atomic_exchange(&gate_closed, true)) os_sleep_ns(LOOK_AGAIN_NS);
    while (atomic_load(&inside)) os_yield();
}

void gate_open(void) { atomic_store(&gate_closed, false); }

void gate_open_in_child(void) {
    atomic_store(&inside, 0);
    gate_open();
}
