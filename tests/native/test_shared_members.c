/* The index, in several processes that join it, are killed, and publish at the same time. */
#include <pthread.h>
#include <sched.h>

#include "index_support.h"

#define SECONDS 2

static shared_counts *counts;

static void publish_at_random(vrange_shared *index, unsigned seed) {
    vrange_shared_found found;
    for (;;) {
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31, turn = atomic_fetch_add(&counts->turn, 1) & 0x7fffffff;
        int removed;
        if (seed >> 8 & 1) {
            set(index, key, turn, &found);
        } else if (seed >> 9 & 1) {
            change(index, key, &removed);
        } else {
            if (find(index, key, &found) >= 0) atomic_fetch_add(&counts->found, 1);
        }
    }
}

static void test_killed_writers_leave_the_index_whole(void) {
    vrange_shared *index = open_index("killed");
    counts = make_counts();
    enum { WRITERS = 4 };
    pid_t writers[WRITERS] = {0};
    unsigned seed = 7;
    for (int turn = 0; turn < 60; turn++) {
        for (int i = 0; i < WRITERS; i++) {
            if (writers[i]) continue;
            writers[i] = begin_child();
            if (writers[i] == 0) {
                CHECK(vrange_shared_identity(index) == 0);
                CHECK(vrange_shared_join(index) == 0);
                publish_at_random(index, (unsigned)getpid());
            }
        }
        usleep(2000 + (seed = seed * 1664525u + 1013904223u) % 5000);
        const int which = turn % WRITERS;
        int status;
        CHECK(kill(writers[which], SIGKILL) == 0 && waitpid(writers[which], &status, 0) == writers[which]);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* not exit(1): no check failed in it */
        writers[which] = 0;
    }
    for (int i = 0; i < WRITERS; i++) {
        int status;
        if (!writers[i]) continue;
        kill(writers[i], SIGKILL);
        CHECK(waitpid(writers[i], &status, 0) == writers[i] && WIFSIGNALED(status));
    }
    CHECK(atomic_load(&counts->found) > 100);
    vrange_shared_found found;
    int removed;
    for (uint64_t key = 0; key < 32; key++) {
        CHECK(set(index, key, 77, &found) == 0);
        CHECK(find(index, key, &found) == 77);
        change(index, key, &removed);
        CHECK(removed == 1);
    }
    CHECK(vrange_shared_members(index) == 0);
}

/* One process changes what is true and then sets or invalidates the value. Once that is done, a reader must not
 * find an older one, though others compute and publish without pause what they began before. */
static void test_no_value_older_than_an_invalidation_is_found(void) {
    vrange_shared *index = open_index("order");
    counts = make_counts();
    pid_t others[3];
    for (int i = 0; i < 3; i++) {
        others[i] = begin_child();
        if (others[i]) continue;
        CHECK(vrange_shared_join(index) == 0);
        vrange_shared_found found;
        unsigned seed = (unsigned)getpid();
        while (!atomic_load(&counts->stop)) {
            seed = seed * 1664525u + 1013904223u;
            const uint64_t key = seed >> 16 & 31;
            const uint64_t latest = atomic_load(&counts->latest[key]);
            const uint64_t changes = changes_of(index, key);
            const uint64_t computed = atomic_load(&counts->truth[key]);
            const int64_t turn = find(index, key, &found);
            if (turn >= 0 && (uint64_t)turn < latest) atomic_fetch_add(&counts->wrong, 1);
            if (seed >> 9 & 1) sched_yield();
            if (turn < 0) put(index, key, computed, changes, &found);
        }
        _exit(0);
    }
    const time_t end = time(NULL) + SECONDS;
    unsigned seed = 3;
    for (uint64_t turn = 1; time(NULL) < end; turn++) {
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31;
        int removed;
        vrange_shared_found found;
        atomic_store(&counts->truth[key], turn);
        if (seed >> 10 & 1) {
            if (set(index, key, turn, &found) != 0) continue;
        } else {
            change(index, key, &removed);
        }
        atomic_store(&counts->latest[key], turn);
    }
    atomic_store(&counts->stop, 1);
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(waitpid(others[i], &status, 0) == others[i] && status == 0);
    }
    CHECK(atomic_load(&counts->wrong) == 0);
}

/* Two members of one place would each take the other for dead, and write to its records. */
static void test_processes_that_join_at_once_are_different_members(void) {
    vrange_shared *index = open_index("join");
    enum { TOGETHER = 4,
           ROUNDS = 300 };
    counts = make_counts();
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        pid_t joining[TOGETHER];
        for (int i = 0; i < TOGETHER; i++) {
            joining[i] = begin_child();
            if (joining[i]) continue;
            while (atomic_load(&counts->turn) != round) continue;
            CHECK(vrange_shared_join(index) == 0);
            atomic_store(&counts->truth[i], vrange_shared_identity(index));
            atomic_fetch_add(&counts->found, 1);
            for (;;) pause();
        }
        atomic_store(&counts->found, 0);
        atomic_store(&counts->turn, round);
        if (round % 3 == 0) kill(joining[round % TOGETHER], SIGKILL); /* perhaps while it joins */
        const uint64_t all = round % 3 ? TOGETHER : TOGETHER - 1;
        while (atomic_load(&counts->found) < all) sched_yield();
        for (int i = 0; round % 3 && i < TOGETHER; i++) {
            for (int other = 0; other < i; other++)
                CHECK((uint32_t)counts->truth[i] != (uint32_t)counts->truth[other]);
        }
        if (round % 3) CHECK(vrange_shared_members(index) == TOGETHER);
        for (int i = 0; i < TOGETHER; i++) {
            kill(joining[i], SIGKILL);
            CHECK(waitpid(joining[i], NULL, 0) == joining[i]);
        }
        CHECK(vrange_shared_members(index) == 0);
    }
}

static void test_blocks_of_dead_members_are_used_again(void) {
    vrange_shared *index = open_index("blocks");
    vrange_shared_found found;
    for (int turn = 0; turn < 6; turn++) { /* each child takes all blocks there are */
        const pid_t child = begin_child();
        if (child == 0) {
            CHECK(vrange_shared_join(index) == 0);
            for (uint64_t key = 0; key < 2000; key++)
                CHECK(put(index, key, 9, changes_of(index, key), &found) == 0);
            kill(getpid(), SIGKILL);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    }
    int there = 0;
    for (uint64_t key = 0; key < 2000; key++) there += find(index, key, &found) == 9;
    CHECK(there > 100); /* small values outlive their process */
    for (uint64_t key = 0; key < 2000; key++) CHECK(put(index, key, 1, changes_of(index, key), &found) == 0);
}

static void *join_of(void *index) {
    CHECK(vrange_shared_join(index) == 0);
    return NULL;
}

/* A member that takes itself for a program that ran before it would lose its blocks to others while it lives. */
static void test_a_process_that_joins_again_stays_a_member(void) {
    vrange_shared *index = open_index("again");
    pthread_t threads[8];
    vrange_shared_leave(index);
    for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, join_of, index) == 0);
    for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(vrange_shared_members(index) == 0); /* no other than itself */
    vrange_shared *second = open_index("again");
    CHECK(vrange_shared_identity(second) != vrange_shared_identity(index));
    CHECK(vrange_shared_members(index) == 1 && vrange_shared_members(second) == 1);
    vrange_shared_found found;
    CHECK(set(index, 1, 5, &found) == 0 && find(second, 1, &found) == 5);
    for (uint64_t key = 2; key < 2000; key++) CHECK(set(second, key, 6, &found) == 0);
    CHECK(set(index, 1, 7, &found) == 0 && find(second, 1, &found) == 7);
    vrange_shared_leave(index);
    CHECK(vrange_shared_members(second) == 0);
}

int main(void) {
    make_directory();
    test_killed_writers_leave_the_index_whole();
    test_no_value_older_than_an_invalidation_is_found();
    test_processes_that_join_at_once_are_different_members();
    test_blocks_of_dead_members_are_used_again();
    test_a_process_that_joins_again_stays_a_member();
    remove_directory();
    return 0;
}
