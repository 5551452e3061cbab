/* The gate that fork closes; see gate.h.
 *
 * A child that is made without fork handlers (the system call alone) has a copy of the memory and none of the
 * other threads. So the kernel wipes the page of the gate in each child. In the child of a fork the handler
 * opens the gate. In the other one, the first thread that comes to the gate finds that it was wiped, and makes
 * the memory the child's own, as the handler would have done. */
#define _GNU_SOURCE
#include "base/gate.h"

#include "os/os.h"
#include "os/os_thread.h"

#define LOOK_AGAIN_NS 20000

gate_page gate;

static struct {
    bool wiped_in_children; /* where pages are larger, others' words lie on the same page */
    _Atomic uint32_t closed_by; /* for the child, if the page is not wiped */
    void (*settle)(void);
} own;

/* A thread that was cancelled inside (pthread_cancel: reading a file allows it) would never leave. */
static _Thread_local struct {
    bool inside;
    int cancel_state; /* of the thread outside */
} own_thread;

static void begin_inside(void) {
    own_thread.cancel_state = os_thread_forbid_cancel();
    own_thread.inside = true;
}

void gate_register_settle(void (*settle)(void)) { own.settle = settle; }

/* The constructor has not run, or this is a child that was made without fork handlers. */
static void open_wiped(void) {
    uint32_t state = GATE_WIPED;
    if (!atomic_compare_exchange_strong(&gate.state, &state, GATE_CLOSED)) return;
    atomic_store(&own.closed_by, os_process_id());
    if (own.wiped_in_children && own.settle) own.settle();
    gate_open();
}

void gate_enter(void) {
    for (;;) {
        atomic_fetch_add(&gate.inside, 1);
        if (!gate_is_closed()) break;
        atomic_fetch_sub(&gate.inside, 1);
        gate_wait();
    }
    begin_inside();
}

bool gate_try_enter(void) {
    if (own_thread.inside) return false;
    if (atomic_load(&gate.state) == GATE_WIPED && !own.wiped_in_children) open_wiped();
    atomic_fetch_add(&gate.inside, 1);
    if (gate_is_closed()) {
        atomic_fetch_sub(&gate.inside, 1);
        return false;
    }
    begin_inside();
    return true;
}

void gate_wait(void) {
    for (uint32_t state; (state = atomic_load(&gate.state)) != GATE_OPEN;) {
        if (state == GATE_WIPED) open_wiped();
        else if (own.wiped_in_children || atomic_load(&own.closed_by) == os_process_id())
            os_sleep_ns(LOOK_AGAIN_NS);
        else gate_open_in_child();
    }
}

void gate_leave(void) {
    own_thread.inside = false;
    atomic_fetch_sub(&gate.inside, 1);
    os_thread_allow_cancel(own_thread.cancel_state);
}

bool gate_step_out(void) {
    const bool was_inside = own_thread.inside;
    if (was_inside) gate_leave();
    return was_inside;
}

void gate_close(void) {
    /* Another thread is forking too. */
    for (uint32_t open = GATE_OPEN; !atomic_compare_exchange_strong(&gate.state, &open, GATE_CLOSED);
         open = GATE_OPEN)
        gate_wait();
    atomic_store(&own.closed_by, os_process_id());
    while (atomic_load(&gate.inside)) os_yield();
}

void gate_open(void) { atomic_store(&gate.state, GATE_OPEN); }

void gate_open_in_child(void) {
    atomic_store(&gate.inside, 0);
    gate_open();
}

bool gate_was_settled(void) { return own.wiped_in_children && atomic_load(&gate.state) == GATE_OPEN; }

__attribute__((constructor)) static void wipe_in_children(void) {
    if (os_page_bytes() == sizeof gate) own.wiped_in_children = os_wipe_on_fork(&gate, sizeof gate) == 0;
    gate_open();
}
