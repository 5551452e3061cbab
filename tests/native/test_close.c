/* An arena closes in steps, while others are in use and threads release and free its ranges: all of it is
 * returned, each range once, and nothing of its neighbours. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "check.h"

#define RANGES 3000
#define THREADS 3
#define ROUNDS 20
#define PINNED_EACH 7

static vrange_arena *arena;
static uint64_t handles[RANGES];
static _Atomic bool begun;

static uint64_t store(vrange_arena *in, uint64_t seed, bool is_held) {
    uint64_t words[1024], handle;
    write_words(words, sizeof words, seed);
    const vrange_part part = {words, sizeof words};
    CHECK(vrange_store(in, &part, 1, 0, 0, &handle) == VRANGE_OK);
    if (!is_held) CHECK(vrange_release(handle) == VRANGE_OK);
    return handle;
}

/* Releases and frees its share, in steps of a prime, so that neighbours go in any order. */
static void *user(void *number) {
    while (!atomic_load(&begun)) {
    }
    for (uint32_t i = 0; i < RANGES; i++) {
        const uint32_t which = i * 7919u % RANGES;
        if (which % THREADS != (uintptr_t)number) continue;
        if (which % PINNED_EACH == 0) {
            CHECK(wrong_words(vrange_address(handles[which]), 8192, which) == 0);
            CHECK(vrange_release(handles[which]) == VRANGE_OK);
        } else if (which % 2) {
            vrange_free(handles[which]); /* it may be gone */
        }
    }
    return NULL;
}

int main(void) {
    vrange_account *account = vrange_account_open("closing", VRANGE_KIND_CACHE);
    vrange_account *others = vrange_account_open("others", VRANGE_KIND_CACHE);
    vrange_arena *other;
    CHECK(account && others && vrange_arena_open_growing(4096 * MIB, others, &other) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(vrange_arena_open_growing(4096 * MIB, account, &arena) == 0);
        uint64_t kept[RANGES / 10];
        for (uint32_t i = 0; i < RANGES; i++) {
            handles[i] = store(arena, i, i % PINNED_EACH == 0);
            if (i % 10 == 0) kept[i / 10] = store(other, ~i, false);
        }
        for (uint32_t i = 0; i < RANGES; i += 50) {
            if (i % PINNED_EACH) CHECK(vrange_free(handles[i]) == VRANGE_OK);
        }
        pthread_t threads[THREADS];
        atomic_store(&begun, false);
        for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, user, (void *)i) == 0);
        atomic_store(&begun, true);
        int steps = 0;
        while (vrange_arena_close_some(arena, 64 << 10)) steps++;
        CHECK(steps > 10);
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        vrange_account_counters now;
        vrange_account_read(account, &now);
        CHECK(now.ranges == 0 && now.reserved_bytes == 0 && now.idle_bytes == 0);
        vrange_account_read(others, &now);
        CHECK(now.ranges == RANGES / 10);
        for (uint32_t i = 0; i < RANGES / 10; i++) {
            CHECK(vrange_pin(kept[i]) == VRANGE_OK);
            CHECK(wrong_words(vrange_address(kept[i]), 8192, ~(10 * i)) == 0);
            CHECK(vrange_release(kept[i]) == VRANGE_OK);
        }
        vrange_free_all(kept, RANGES / 10);
        vrange_account_read(others, &now);
        CHECK(now.ranges == 0 && now.idle_bytes == 0);
    }
    vrange_arena_close(other);
    puts("closing: ok");
    return 0;
}
