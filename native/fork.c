/* What a fork does to volatile memory, and how it is mended before any Python runs in the child.
 *
 * The child inherits the mappings but not their registration with userfaultfd: a page that is missing
 * would read as zeros there, and an ioctl on the inherited descriptor would fill the parent's memory.
 * So the child handler opens a descriptor of its own and registers every arena with it. The thread of
 * the caretaker does not exist in the child; the first store there starts one. Deep stacks that other
 * threads ran on are free there, and of the threads that registered only the forking one is left. And
 * what the child counts must not land in its parent's stats segment. */
#include <pthread.h>
#include <stdlib.h>

#include "arena.h"
#include "array.h"
#include "caretaker.h"
#include "gate.h"
#include "idle.h"
#include "os.h"
#include "pymalloc.h"
#include "pressure.h"
#include "rung.h"
#include "scratch.h"
#include "stack.h"
#include "stats.h"

static void before_fork(void) {
    gate_close();
    pymalloc_before_fork();
}

static void after_fork_in_parent(void) {
    pymalloc_after_fork();
    gate_open();
}

static void after_fork_in_child(void) {
    pymalloc_after_fork();
    caretaker_forget_thread();
    pressure_after_fork();
    scratch_forget_owners();
    stacks_after_fork();
    idle_after_fork();
    stats_after_fork();
    int result = rung_reopen();
    if (result == 0) result = arenas_register_again(rung_userfault());
    if (result == 0) result = arrays_register_again(rung_userfault());
    if (result < 0) {
        /* Going on would hand out zeros for what was purged. */
        static const char message[] =
            "vrange: userfaultfd can't be opened again after fork; purged content could not be told "
            "from zeros in this child\n";
        os_complain(message, sizeof message - 1);
        abort();
    }
    gate_open_in_child();
}

__attribute__((constructor)) static void watch_forks(void) {
    /* Fails only without memory, at load time, where nothing of ours would work either. */
    if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) abort();
}
