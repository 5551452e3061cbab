/* Pins against a kernel that goes on taking: what is pinned keeps every word, and what was lost is
 * told. The control reads without a pin, and must see what a pin protects from; a harness that can't
 * see the fault proves nothing. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "os/os.h"

#define RANGES 64
#define BYTES (8 * vrange_page_bytes())
#define SECONDS 2
#define WORKERS 2

static uint64_t handles[RANGES];
static pthread_mutex_t locks[RANGES];
static uint64_t seeds[RANGES];
static _Atomic bool stop;
static _Atomic uint64_t pins, losses, wrong;

/* Takes whatever is offered, page by page, wherever it is. */
static void *taker(void *unused) {
    (void)unused;
    for (size_t i = 0; !atomic_load(&stop); i++) {
        char *address = vrange_address(handles[i % RANGES]);
        madvise(address + (i / RANGES % 8) * vrange_page_bytes(), vrange_page_bytes(), MADV_PAGEOUT);
    }
    return NULL;
}

static void *worker(void *number) {
    uint64_t random = (uint64_t)(uintptr_t)number * 7919 + 12345;
    while (!atomic_load(&stop)) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t i = random % RANGES;
        if (pthread_mutex_trylock(&locks[i])) continue;
        int result = vrange_pin(handles[i]);
        CHECK(result == VRANGE_OK || result == VRANGE_PURGED);
        uint64_t *words = vrange_address(handles[i]);
        if (result == VRANGE_OK) {
            wrong += wrong_words(words, BYTES, seeds[i]);
        } else {
            losses++;
            write_words(words, BYTES, ++seeds[i]);
            CHECK(vrange_refilled(handles[i]) == VRANGE_OK);
        }
        os_yield();
        wrong += wrong_words(words, BYTES, seeds[i]); /* pinned, nothing may change */
        pins++;
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
        pthread_mutex_unlock(&locks[i]);
    }
    return NULL;
}

/* Plain memory, offered and read: what the pins above would see if they did not pin. */
static bool control_loses(void) {
    char *memory = os_map(MIB);
    CHECK(memory);
    for (int tries = 0; tries < 200; tries++) {
        write_words((uint64_t *)(void *)memory, MIB, 5);
        os_lazyfree(memory, MIB);
        madvise(memory, MIB, MADV_PAGEOUT);
        if (wrong_words((uint64_t *)(void *)memory, MIB, 5)) return true;
    }
    return false;
}

int main(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(64 * MIB, &account);
    CHECK(vrange_reserve_start(64 * MIB, 100000, true) == 0);
    for (int i = 0; i < RANGES; i++) {
        pthread_mutex_init(&locks[i], NULL);
        CHECK(vrange_allocate(arena, BYTES, &handles[i]) == 0);
        write_words(vrange_address(handles[i]), BYTES, seeds[i] = (uint64_t)i + 1);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
    pthread_t threads[WORKERS + 1];
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, worker, (void *)i) == 0);
    CHECK(pthread_create(&threads[WORKERS], NULL, taker, NULL) == 0);
    os_sleep_ns(SECONDS * 1000000000ull);
    atomic_store(&stop, true);
    for (int i = 0; i <= WORKERS; i++) pthread_join(threads[i], NULL);
    printf("races: %lu pins, %lu losses, %lu wrong words\n", (unsigned long)pins,
           (unsigned long)losses, (unsigned long)wrong);
    CHECK(wrong == 0);
    CHECK(pins > 100);
    if (vrange_rung() != VRANGE_RUNG_EAGER) {
        CHECK(losses > 0);
        CHECK(control_loses());
    }
    return 0;
}
