/* Programs that allocate small blocks in four well-known patterns, after the descriptions of Larson and Krishnan
 * (1998), of xmalloc-test, of cache-scratch (Berger et al., 2000) and of sh6bench.
 *
 *   small_blocks PATTERN THREADS SECONDS
 *
 * larson: blocks of random sizes are replaced at random, and the set of blocks goes from thread to thread.
 * xmalloc: some threads allocate, others free. scratch: each thread frees a block that main allocated and then
 * writes to small blocks of its own. mix: blocks live until several others have come and gone, in and out of
 * order; one in a thousand is large. Prints the blocks, and the processor time in nanoseconds. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MOST 64
#define SLOTS 1000
#define REPLACED 20000
#define BATCH 128
#define BATCHES_MOST 200
#define WRITES 1000
#define LARGE ((size_t)96 << 10)

typedef struct batch {
    struct batch *next;
    void *blocks[BATCH];
} batch;

static atomic_bool over;
static atomic_ulong allocated;
static void *slots[THREADS_MOST][SLOTS];
static void *spare_slots[SLOTS];
static void **_Atomic spare = spare_slots;
static _Atomic(batch *) full;
static atomic_int full_batches;

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static void *filled(size_t bytes) {
    char *block = malloc(bytes);
    if (!block) abort();
    block[0] = block[bytes - 1] = 1;
    return block;
}

static uint64_t larson(unsigned thread, unsigned threads, uint64_t *state) {
    uint64_t done = 0;
    void **own = slots[thread];
    (void)threads;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        for (int i = 0; i < REPLACED; i++) {
            const uint64_t random = next_random(state);
            void **slot = &own[random % SLOTS];
            free(*slot);
            *slot = filled(16 + (random >> 20) % 1000);
        }
        done += REPLACED;
        own = atomic_exchange(&spare, own);
    }
    return done;
}

static uint64_t xmalloc(unsigned thread, unsigned threads, uint64_t *state) {
    uint64_t done = 0;
    const bool allocates = thread % 2 == 0 || threads == 1;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        if (allocates && atomic_load(&full_batches) > BATCHES_MOST && threads > 1) {
            usleep(20);
        } else if (allocates) {
            batch *one = malloc(sizeof *one);
            for (int i = 0; i < BATCH; i++) one->blocks[i] = filled(16 + next_random(state) % 500);
            one->next = atomic_load(&full);
            while (!atomic_compare_exchange_weak(&full, &one->next, one)) {}
            atomic_fetch_add(&full_batches, 1);
            done += BATCH + 1;
        }
        if (!allocates || threads == 1) {
            batch *one = atomic_exchange(&full, NULL);
            if (!one) usleep(20);
            for (batch *next; one; one = next) {
                next = one->next;
                for (int i = 0; i < BATCH; i++) free(one->blocks[i]);
                free(one);
                atomic_fetch_sub(&full_batches, 1);
            }
        }
    }
    return done;
}

static uint64_t scratch(unsigned thread, unsigned threads, uint64_t *state) {
    uint64_t done = 0;
    (void)threads, (void)state;
    free(slots[thread][0]);
    slots[thread][0] = NULL;
    for (; !atomic_load_explicit(&over, memory_order_relaxed); done++) {
        volatile char *block = filled(8);
        for (int i = 0; i < WRITES; i++) block[i % 8]++;
        free((void *)block);
    }
    return done;
}

static uint64_t mix(unsigned thread, unsigned threads, uint64_t *state) {
    uint64_t done = 0;
    void **own = slots[thread];
    (void)threads;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        for (int i = 0; i < SLOTS; i++) {
            const uint64_t random = next_random(state);
            own[i] = filled(random % 1000 ? 1 + (random >> 10) % 400 : LARGE);
        }
        for (int i = 0; i < SLOTS; i += 2) free(own[i]);           /* in order */
        for (int i = SLOTS - 1; i > 0; i -= 2) free(own[i]); /* and in reverse */
        memset(own, 0, SLOTS * sizeof *own);
        done += SLOTS;
    }
    return done;
}

typedef uint64_t pattern(unsigned thread, unsigned threads, uint64_t *state);
static pattern *chosen;
static unsigned threads_all;

static void *work(void *thread) {
    uint64_t state = 88172645463325252ull + (uintptr_t)thread * 7919;
    atomic_fetch_add(&allocated, chosen((unsigned)(uintptr_t)thread, threads_all, &state));
    return NULL;
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        pattern *run;
    } patterns[] = {{"larson", larson}, {"xmalloc", xmalloc}, {"scratch", scratch}, {"mix", mix}};
    if (count != 4) return 2;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        if (strcmp(words[1], patterns[i].name) == 0) chosen = patterns[i].run;
    }
    threads_all = (unsigned)atoi(words[2]);
    if (!chosen || threads_all < 1 || threads_all > THREADS_MOST) return 2;
    for (unsigned i = 0; i < threads_all; i++) slots[i][0] = filled(8);
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    pthread_t all[THREADS_MOST];
    for (uintptr_t i = 0; i < threads_all; i++) {
        if (pthread_create(&all[i], NULL, work, (void *)i) != 0) return 1;
    }
    usleep((useconds_t)(atof(words[3]) * 1e6));
    atomic_store(&over, true);
    for (unsigned i = 0; i < threads_all; i++) pthread_join(all[i], NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    printf("%lu %lld\n", atomic_load(&allocated),
           (after.tv_sec - before.tv_sec) * 1000000000ll + (after.tv_nsec - before.tv_nsec));
    return 0;
}
