/* A child that was made without fork handlers, by the system call alone: some sandboxes, profilers and language
 * runtimes make such children.
 *
 * It has a copy of everything and none of the other threads, so a lock may be held for ever and a list may be
 * half changed. And it has the descriptor of its parent's userfaultfd: to fill a range through it would write
 * into the parent's memory. So the first thread that comes to the gate (base/gate.c) frees the locks and then
 * does what the fork handlers do. What was half changed is left as it is, and not used again: an arena holds
 * nothing new then.
 *
 * Until that moment the child can touch only what it has pinned. A VolatileArray reads as zeros where blocks
 * are missing. */
#define _GNU_SOURCE
#include "arrays/array_places.h"
#include "base/caretaker.h"
#include "base/fault_chain.h"
#include "base/gate.h"
#include "counters/accounts.h"
#include "heap/heap.h"
#include "heap/pymalloc_arenas.h"
#include "pressure/memory_limits.h"
#include "process/fork_child.h"
#include "ranges/all_arenas.h"
#include "ranges/range_table.h"

static void renew_locks(void) {
    fault_chain_renew_locks();
    accounts_renew_lock();
    table_renew_locks();
    arenas_renew_locks();
    places_forget_readers();
    limits_renew_locks();
    heap_renew_locks();
    pymalloc_renew_lock();
}

static void settle(void) {
    renew_locks();
    fork_list_in_child();
    fork_settle_child();
    table_read_all();
}

__attribute__((constructor)) static void watch_gate(void) { gate_register_settle(settle); }
