/* A fork that an interpreter announced: the kernel counts no thread of vrange until the interpreter has. */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>

#include "fork_support.h"
#include "process/fork_pause.h"

static int threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int count = 0;
    for (struct dirent *task; (task = readdir(tasks));) count += task->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static bool reserve_runs(void) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    return reserve.running;
}

static uint64_t turns(void) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    return reserve.ticks + reserve.helped;
}

static void is_counted_alone(vrange_arena *arena) {
    for (int i = 0; i < 50; i++) {
        CHECK(threads() == 2 && reserve_runs());
        vrange_fork_begins();
        const uint64_t before = turns();
        for (int waited = 0; turns() == before; waited++) { /* until fork() the thread goes on */
            CHECK(waited < 20000);
            usleep(500);
        }
        IN_CHILD({
            CHECK(threads() == 1);
            const uint64_t own = filled(arena, BYTES, 7);
            CHECK(threads() == 2 && reserve_runs());
            CHECK(has(own, BYTES, 7));
            IN_CHILD(CHECK(threads() == 1));
            CHECK(threads() == 2); /* that one was not announced */
        });
        CHECK(threads() == 1);
        vrange_fork_ended();
        CHECK(threads() == 2 && reserve_runs());
    }
}

/* A thread that stores in the pause starts no other thread, and takes the turns that are due. */
static void is_kept_in_the_pause(vrange_arena *arena) {
    vrange_fork_begins();
    IN_CHILD({});
    const uint64_t before = turns();
    for (int waited = 0; turns() == before; waited++) {
        CHECK(waited < 20000);
        CHECK(vrange_free(filled(arena, BYTES, 1)) == VRANGE_OK);
        usleep(500);
    }
    CHECK(threads() == 1);
    vrange_fork_ended();
    CHECK(threads() == 2);
}

/* Forks of several threads overlap: the thread is back after the last. */
static void overlaps(void) {
    vrange_fork_begins();
    vrange_fork_begins();
    IN_CHILD(CHECK(!reserve_runs()));
    vrange_fork_ended();
    CHECK(threads() == 1);
    IN_CHILD(CHECK(!reserve_runs()));
    vrange_fork_ended();
    CHECK(threads() == 2);
    vrange_fork_ended(); /* one too many does nothing */
    CHECK(threads() == 2);
}

/* A reserve that was stopped does not start again, and one that is set in the pause starts after it. */
static void is_set_in_the_pause(void) {
    vrange_fork_begins();
    IN_CHILD({});
    vrange_reserve_stop();
    vrange_fork_ended();
    CHECK(threads() == 1);
    vrange_fork_begins();
    IN_CHILD({});
    CHECK(vrange_reserve_start(16 * MIB, 5000000, 1) == 0);
    CHECK(threads() == 1);
    vrange_fork_ended();
    CHECK(threads() == 2 && reserve_runs());
}

/* The interpreter counts threads and announces nothing. The thread ends at each fork, and is back once it is needed. */
static void is_not_announced(vrange_arena *arena) {
    fork_pause_always();
    IN_CHILD(CHECK(threads() == 1));
    CHECK(threads() == 1);
    CHECK(vrange_free(filled(arena, BYTES, 1)) == VRANGE_OK);
    CHECK(vrange_reserve_start(16 * MIB, 5000000, 1) == 0 && threads() == 2);
    vrange_fork_begins(); /* one that is announced all the same */
    IN_CHILD(CHECK(threads() == 1));
    vrange_fork_ended();
    CHECK(threads() == 2);
    vrange_reserve_stop();
    IN_CHILD(CHECK(threads() == 1)); /* there is none to end */
    CHECK(threads() == 1);
}

int main(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    CHECK(vrange_reserve_start(16 * MIB, 5000000, 1) == 0);
    is_counted_alone(arena);
    is_kept_in_the_pause(arena);
    overlaps();
    is_set_in_the_pause();
    is_not_announced(arena);
    return 0;
}
