/* The gate that fork closes; see gate.h. */
#include "gate.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "os.h"

#define LOOK_AGAIN_NS 20000

static struct {
    _Atomic int inside;
    _Atomic bool closed;
} gate;

void gate_enter(void) {
    for (;;) {
        atomic_fetch_add(&gate.inside, 1);
        if (!atomic_load(&gate.closed)) return;
        atomic_fetch_sub(&gate.inside, 1);
        while (atomic_load(&gate.closed)) os_sleep_ns(LOOK_AGAIN_NS);
    }
}

void gate_leave(void) { atomic_fetch_sub(&gate.inside, 1); }

void gate_close(void) {
    while (atomic_exchange(&gate.closed, true)) os_sleep_ns(LOOK_AGAIN_NS); /* another thread forks too */
    while (atomic_load(&gate.inside)) os_yield();
}

void gate_open(void) { atomic_store(&gate.closed, false); }

void gate_open_in_child(void) {
    atomic_store(&gate.inside, 0);
    gate_open();
}
