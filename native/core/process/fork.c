/* What a fork does to volatile memory, and how that is repaired before any Python code runs in the child.
 *
 * The child inherits the pinned ranges; all others are purged there (inherit.h), and what a cache has in them
 * is read from its owner (range_away.h). The inherited memory is not
 * registered with a userfaultfd of the child: a missing page would read as zeros, and an ioctl on the
 * inherited descriptor would fill the parent's memory. So the child's handler opens a descriptor of its own
 * and registers every arena with it. If a sandbox, for example, refuses that, the child continues on a lower
 * rung: it has offered nothing yet that could be lost.
 *
 * The caretaker does not exist in the child. The first store, slow pin or release there starts one.
 * Deep stacks that other threads ran on are free in the child, and of the registered threads only the forking
 * one is left. The child's counts must not be written to its parent's stats segment. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "ranges/all_arenas.h"
#include "arrays/all_arrays.h"
#include "base/caretaker.h"
#include "base/gate.h"
#include "stacks/idle_threads.h"
#include "stacks/own_stack.h"
#include "base/inherit.h"
#include "os/os.h"
#include "os/os_proc_files.h"
#include "os/os_thread.h"
#include "pressure/memory_limits.h"
#include "pressure/alarm.h"
#include "pressure/watcher.h"
#include "heap/heap.h"
#include "heap/pymalloc_arenas.h"
#include "process/fork_child.h"
#include "process/fork_pause.h"
#include "ranges/owners.h"
#include "ranges/range_table.h"
#include "ranges/range_offer.h"
#include "pressure/room_for_copy.h"
#include "base/rung.h"
#include "base/scratch.h"
#include "stacks/stack.h"
#include "counters/accounts.h"
#include "counters/requests.h"
#include "counters/stats.h"

static bool leaves_ranges; /* that the child may read in this process */

static void list_inherited(bool leaves) {
    pymalloc_before_fork();
    inherit_begin();
    leaves_ranges = table_before_fork() && leaves && owners_before_fork();
    arenas_before_fork();
    arrays_before_fork();
}

static void before_fork(void) {
    pause_before_fork();
    gate_close();
    list_inherited(true);
    inherit_mark();
}

void fork_list_in_child(void) {
    list_inherited(false);
    inherit_mark_nothing();
}

static void after_fork_in_parent(void) {
    inherit_unmark();
    table_after_fork_in_parent();
    pymalloc_after_fork();
    gate_open();
    pause_after_fork_in_parent();
}

static int register_again(void) {
    int result = rung_reopen();
    if (result == 0) result = arenas_register_again(rung_userfault());
    if (result == 0) result = arrays_register_again(rung_userfault());
    return result;
}

/* Returns 0, or -errno if the child could return memory whose content is missing. */
static int make_memory_own(void) {
    const int inherited = inherit_settle();
    const uint32_t level = owners_after_fork(leaves_ranges);
    if (inherited < 0) return inherited;
    table_after_fork_in_child(inherited == 0, level);
    if (inherited == 0) {
        arenas_after_fork();
        inherit_tell_settled();
    }
    const int refused = register_again();
    if (refused == 0) return 0;
    rung_fall_after_fork(refused);
    stats_rung_changed();
    if (inherited) ranges_shed_offered();
    return arrays_register_again(rung_userfault());
}

void fork_settle_child(void) {
    pymalloc_after_fork();
    pause_after_fork_in_child();
    os_main_thread_after_fork();
    caretaker_forget_thread();
    room_after_fork();
    watcher_after_fork();
    scratch_forget_owners();
    os_proc_after_fork();
    limits_after_fork();
    alarm_after_fork();
    stacks_after_fork();
    own_stacks_after_fork();
    idle_after_fork();
    heap_after_fork();
    accounts_after_fork();
    requests_after_fork();
    if (make_memory_own() < 0) {
        static const char message[] =
            "vrange: the memory of this child can't be set right after fork; what is purged could "
            "not be told from zeros, so the child ends\n";
        os_complain(message, sizeof message - 1);
        abort();
    }
}

static void after_fork_in_child(void) {
    if (!gate_was_settled()) fork_settle_child();
    gate_open_in_child();
}

__attribute__((constructor)) static void watch_forks(void) {
    /* Fails only if there is no memory at load time; then nothing else in this library would work either. */
    if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) abort();
}
