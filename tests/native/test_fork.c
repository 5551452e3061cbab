/* The child of a fork: it has what is pinned, everything else is purged there, and its doings do not
 * reach the parent. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "fork_support.h"

/* ---- what is kept, and what is not ------------------------------------------------------------ */

static void check_child(vrange_arena *arena, uint64_t lost, uint64_t idle, uint64_t held) {
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    CHECK(!reserve.running);
    CHECK(vrange_state(held) == VRANGE_STATE_PINNED && has(held, BYTES, 3));
    write_words(vrange_address(held), BYTES, 33);
    CHECK(vrange_release(held) == VRANGE_OK);
    vrange_reserve_read(&reserve);
    CHECK(reserve.running); /* something is volatile now, and somebody looks after it */
    CHECK(vrange_pin(held) == VRANGE_OK && has(held, BYTES, 33));
    CHECK(vrange_state(idle) == VRANGE_STATE_PURGED);
    CHECK(vrange_pin_whole(idle) == VRANGE_PURGED);
    CHECK(vrange_pin(idle) == VRANGE_PURGED);
    CHECK(is_zero(vrange_address(idle), BYTES));
    write_words(vrange_address(idle), BYTES, 99);
    CHECK(vrange_refilled(idle) == VRANGE_OK);
    CHECK(vrange_release(idle) == VRANGE_OK);
    CHECK(vrange_pin(idle) == VRANGE_OK && has(idle, BYTES, 99));
    CHECK(vrange_release(idle) == VRANGE_OK);
    CHECK(vrange_discard(idle) == VRANGE_OK); /* lost after the fork */
    CHECK(vrange_pin(idle) == VRANGE_PURGED);
    CHECK(vrange_pin(lost) == VRANGE_PURGED);
    /* Across every seam between what was kept and what was not. */
    for (int i = 0; i < 20; i++) {
        uint64_t own = filled(arena, 3 * BYTES, 50 + (uint64_t)i);
        CHECK(has(own, 3 * BYTES, 50 + (uint64_t)i));
        if (i % 2) CHECK(vrange_free(own) == VRANGE_OK && vrange_release(own) == VRANGE_OK);
    }
}

static void keeps_what_is_pinned(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t lost = filled(arena, BYTES, 1), idle = filled(arena, BYTES, 2);
    uint64_t held = filled(arena, BYTES, 3);
    CHECK(vrange_release(lost) == VRANGE_OK && vrange_release(idle) == VRANGE_OK);
    CHECK(vrange_discard(lost) == VRANGE_OK);
    for (int i = 0; i < 3; i++) {
        IN_CHILD(check_child(arena, lost, idle, held));
        IN_CHILD({
            IN_CHILD(check_child(arena, lost, idle, held));
            check_child(arena, lost, idle, held);
            IN_CHILD(CHECK(vrange_pin(held) == VRANGE_OK && has(held, BYTES, 33)));
        });
    }
    CHECK(vrange_pin(lost) == VRANGE_PURGED);
    CHECK(vrange_pin(idle) == VRANGE_OK && has(idle, BYTES, 2) && has(held, BYTES, 3));
}

/* A child's bytes are what it has, however the parent's were. */
static void counts_what_is_kept(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t held = filled(arena, BYTES, 1), idle = filled(arena, 2 * BYTES, 2);
    uint64_t doomed = filled(arena, 4 * BYTES, 3);
    CHECK(vrange_release(idle) == VRANGE_OK);
    CHECK(vrange_free(doomed) == VRANGE_OK);
    IN_CHILD({
        vrange_account_counters is;
        vrange_account_read(account, &is);
        CHECK(is.pinned_bytes == 5 * BYTES && is.purged_bytes == 2 * BYTES);
        CHECK(is.idle_bytes == 0 && is.offered_bytes == 0);
        CHECK(has(doomed, 4 * BYTES, 3));
        CHECK(vrange_release(doomed) == VRANGE_OK);
        CHECK(vrange_free(idle) == VRANGE_OK && vrange_free(held) == VRANGE_OK);
        CHECK(vrange_release(held) == VRANGE_OK);
        vrange_account_read(account, &is);
        CHECK(is.pinned_bytes == 0 && is.purged_bytes == 0 && is.ranges == 0);
        /* Its whole place can be had again. */
        vrange_arena_close(arena);
    });
    CHECK(has(doomed, 4 * BYTES, 3) && has(held, BYTES, 1));
    CHECK(vrange_pin(idle) == VRANGE_OK && has(idle, 2 * BYTES, 2));
}

/* What was lost by a fork is told to who asks for all that was lost, once. */
static void tells_what_was_lost(void) {
    enum { RANGES = 300 };
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account), *other = open_arena(16 * MIB, &account);
    uint64_t handles[RANGES], told[64];
    for (uint64_t i = 0; i < RANGES; i++) {
        handles[i] = filled(arena, PAGE, i);
        uint64_t elsewhere = filled(other, PAGE, i);
        CHECK(vrange_release(elsewhere) == VRANGE_OK);
        if (i % 3) CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
    IN_CHILD({
        size_t count, all = 0;
        while ((count = vrange_arena_lost(arena, told, 64)) > 0) {
            for (size_t i = 0; i < count; i++) {
                size_t at = 0;
                while (at < RANGES && handles[at] != told[i]) at++;
                CHECK(at < RANGES && at % 3 != 0);
                CHECK(vrange_free(told[i]) == VRANGE_OK);
            }
            all += count;
        }
        CHECK(all == RANGES - RANGES / 3);
    });
    CHECK(vrange_arena_lost(arena, told, 64) == 0);
}

/* A closed arena stays for as long as something in it is held, on both sides. */
static void keeps_what_is_held_of_a_closed_arena(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t held = filled(arena, BYTES, 1), idle = filled(arena, BYTES, 2);
    CHECK(vrange_release(idle) == VRANGE_OK);
    vrange_arena_close(arena);
    char *at = vrange_address(held);
    IN_CHILD({
        CHECK(has(held, BYTES, 1) && vrange_pin(idle) == VRANGE_GONE);
        IN_CHILD(CHECK(has(held, BYTES, 1)));
        CHECK(vrange_release(held) == VRANGE_OK);
        unsigned char seen[8];
        CHECK(mincore(at, BYTES, seen) < 0); /* unmapped */
    });
    CHECK(has(held, BYTES, 1) && vrange_release(held) == VRANGE_OK);
}

/* A range that had lost some of its blocks has lost all of them in the child. */
static void forgets_partial_losses(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t part = filled(arena, BYTES, 1);
    CHECK(vrange_set_partial(part, 1) == VRANGE_OK);
    CHECK(vrange_release(part) == VRANGE_OK);
    IN_CHILD({
        vrange_block blocks[8];
        CHECK(vrange_pin(part) == VRANGE_PURGED);
        CHECK(vrange_lost_blocks(part, blocks, 8) == 1);
        CHECK(blocks[0].offset == 0 && blocks[0].bytes == BYTES);
        CHECK(is_zero(vrange_address(part), BYTES));
    });
    CHECK(vrange_pin(part) == VRANGE_OK && has(part, BYTES, 1));
}

/* More pinned pages than there may be mappings: the nearest are kept together with what lies between. */
static void keeps_many(void) {
    enum { PAIRS = 10000 };
    vrange_account *account;
    vrange_arena *arena = open_arena(128 * MIB, &account);
    static uint64_t held[PAIRS], idle[PAIRS];
    for (uint64_t i = 0; i < PAIRS; i++) {
        held[i] = filled(arena, PAGE, i);
        idle[i] = filled(arena, PAGE, i + PAIRS);
        CHECK(vrange_release(idle[i]) == VRANGE_OK);
    }
    for (int times = 0; times < 2; times++) {
        IN_CHILD({
            for (uint64_t i = 0; i < PAIRS; i++) {
                CHECK(has(held[i], PAGE, i));
                CHECK(vrange_pin(idle[i]) == VRANGE_PURGED);
                CHECK(is_zero(vrange_address(idle[i]), PAGE));
            }
        });
    }
    for (uint64_t i = 0; i < PAIRS; i++) {
        CHECK(has(held[i], PAGE, i));
        CHECK(vrange_pin(idle[i]) == VRANGE_OK && has(idle[i], PAGE, i + PAIRS));
    }
    vrange_arena_close(arena);
}

/* ---- memory that only one side has ------------------------------------------------------------ */

/* Before anything else is done there, the child has none of what is volatile, and nothing of it is
 * shared: what the parent offers the kernel can take. */
static void shares_nothing_volatile(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(64 * MIB, &account);
    const size_t bytes = 16 * MIB;
    uint64_t idle = filled(arena, bytes, 1), held = filled(arena, bytes, 2);
    char *idle_at = vrange_address(idle);
    CHECK(vrange_release(idle) == VRANGE_OK);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        static unsigned char seen[4096];
        CHECK(mincore(idle_at, bytes, seen) == 0);
        for (size_t i = 0; i < bytes / PAGE; i++) CHECK(!(seen[i] & 1));
        CHECK(has(held, bytes, 2));
        sleep(60);
        _exit(0);
    }
    usleep(100000);
    unsigned char seen[4096];
    size_t resident = 0;
    for (int tries = 0; tries < 3; tries++) {
        CHECK(madvise(idle_at, bytes, MADV_FREE) == 0);
        CHECK(madvise(idle_at, bytes, MADV_PAGEOUT) == 0);
    }
    CHECK(mincore(idle_at, bytes, seen) == 0);
    for (size_t i = 0; i < bytes / PAGE; i++) resident += seen[i] & 1;
    CHECK(waitpid(child, NULL, WNOHANG) == 0); /* it lives, and found nothing wrong */
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    CHECK(resident < bytes / PAGE / 8);
    CHECK(has(held, bytes, 2));
}

/* A child that is made without our handlers has everything, as any other memory. */
static void leaves_raw_children_alone(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t idle = filled(arena, BYTES, 1), held = filled(arena, BYTES, 2);
    CHECK(vrange_release(idle) == VRANGE_OK);
    IN_CHILD(CHECK(has(held, BYTES, 2))); /* what a fork marks, it unmarks */
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        CHECK(has(held, BYTES, 2));
        /* On the sentinel rung the first words of idle pages may be elsewhere. */
        CHECK(wrong_words((uint64_t *)vrange_address(idle), BYTES, 1) <= BYTES / PAGE);
        _exit(0);
    }
    ends_well(child);
}

/* ---- while other threads pin ------------------------------------------------------------------ */

enum {
    SHARED = 64,
    THREADS = 2,
};
static uint64_t shared[SHARED];
static _Atomic bool stop;
static _Atomic uint64_t turns;
static _Atomic uint64_t in_hand[THREADS]; /* which each of them has pinned, and one */

static void *pin_and_release(void *number) {
    _Atomic uint64_t *mine = &in_hand[(uintptr_t)number];
    for (uint64_t i = (uintptr_t)number * 1000; !atomic_load(&stop); i++) {
        const uint64_t which = i * 7 % SHARED;
        if (vrange_pin_whole(shared[which]) != VRANGE_OK) continue;
        atomic_store(mine, which + 1);
        CHECK(has(shared[which], PAGE, which));
        atomic_store(mine, 0);
        CHECK(vrange_release(shared[which]) == VRANGE_OK);
        atomic_fetch_add(&turns, 1);
    }
    return NULL;
}

/* Whatever such a thread was doing: what it had in hand the child has, and what the child can pin is
 * whole there. */
static void forks_while_others_pin(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    for (uint64_t i = 0; i < SHARED; i++) {
        shared[i] = filled(arena, PAGE, i);
        CHECK(vrange_release(shared[i]) == VRANGE_OK);
    }
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, pin_and_release, (void *)i) == 0);
    while (atomic_load(&turns) < 1000) usleep(1000);
    for (int times = 0; times < 30; times++) {
        IN_CHILD({
            for (int i = 0; i < THREADS; i++) {
                const uint64_t which = atomic_load(&in_hand[i]);
                if (which) CHECK(has(shared[which - 1], PAGE, which - 1));
            }
            for (uint64_t i = 0; i < SHARED; i++) {
                int result = vrange_pin(shared[i]);
                CHECK(result == VRANGE_OK || result == VRANGE_PURGED);
                if (result == VRANGE_OK) CHECK(has(shared[i], PAGE, i));
                else CHECK(is_zero(vrange_address(shared[i]), PAGE));
            }
        });
    }
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (uint64_t i = 0; i < SHARED; i++) CHECK(vrange_state(shared[i]) != VRANGE_STATE_PINNED);
}

int main(void) {
    keeps_what_is_pinned();
    counts_what_is_kept();
    tells_what_was_lost();
    keeps_what_is_held_of_a_closed_arena();
    forgets_partial_losses();
    keeps_many();
    shares_nothing_volatile();
    leaves_raw_children_alone();
    forks_while_others_pin();
    return 0;
}
