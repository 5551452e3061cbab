/* The gate that fork closes; see gate.h.
 *
 * A child that is made without fork handlers (the system call alone) has none of the threads that were inside,
 * nor the one that closed the gate. So the kernel wipes the count of those inside in each child, and what
 * another process closed is open. In a child of a fork the gate stays closed until its handler has run. */
#include "base/gate.h"

#include "os/os.h"

#define LOOK_AGAIN_NS 20000
#define PAGE_BYTES 4096

/* Every pin reads this, so it has a cache line apart from the one that every slow call writes. */
_Alignas(64) _Atomic uint32_t gate_closed_by;

static struct {
    _Alignas(PAGE_BYTES) _Atomic int inside;
} gate;

static _Thread_local bool is_inside;

void gate_enter(void) {
    for (;;) {
        atomic_fetch_add(&gate.inside, 1);
        if (!gate_is_closed()) break;
        atomic_fetch_sub(&gate.inside, 1);
        gate_wait();
    }
    is_inside = true;
}

bool gate_try_enter(void) {
    if (is_inside) return false;
    atomic_fetch_add(&gate.inside, 1);
    if (gate_is_closed()) {
        atomic_fetch_sub(&gate.inside, 1);
        return false;
    }
    is_inside = true;
    return true;
}

void gate_wait(void) {
    for (uint32_t by; (by = atomic_load(&gate_closed_by));) {
        if (by == os_process_id()) os_sleep_ns(LOOK_AGAIN_NS);
        else atomic_compare_exchange_strong(&gate_closed_by, &by, 0);
    }
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
    for (uint32_t open = 0; !atomic_compare_exchange_strong(&gate_closed_by, &open, os_process_id()); open = 0)
        gate_wait();
    while (atomic_load(&gate.inside)) os_yield();
}

void gate_open(void) { atomic_store(&gate_closed_by, 0); }

void gate_open_in_child(void) {
    atomic_store(&gate.inside, 0);
    gate_open();
}

/* Where pages are larger, others' words lie on the same page. */
__attribute__((constructor)) static void wipe_in_children(void) {
    if (os_page_bytes() == PAGE_BYTES) os_wipe_on_fork(&gate, PAGE_BYTES);
}
