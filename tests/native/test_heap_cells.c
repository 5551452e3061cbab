/* Freed blocks wait in cells of the processor: the next one of the size is the same, all figures count it as
 * free, it is offered when nobody wants it, and a second free is refused. Threads exchange blocks while the
 * process forks, and each child goes on with a heap that is whole. No call of the heap waits for a fork. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/caretaker.h"
#include "check.h"
#include "fork_support.h"
#include "heap/heap.h"
#include "heap/heap_left.h"
#include "os/os.h"

#define THREADS 4
#define SHARED 32
#define FORKS 40
#define KIB ((size_t)1 << 10)
#define KEPT 400
#define INTERRUPTED 6 /* threads of a processor */
#define WAIT_TRIES 20000
#define WAIT_NS 1000000u

static vrange_heap_info now(void) {
    vrange_heap_info info;
    vrange_heap_read(&info);
    return info;
}

static void *take(size_t bytes) {
    size_t stale;
    return heap_allocate(bytes, &stale);
}

static void stay_on_one_processor(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
}

static atomic_int bounded;
static atomic_bool is_open;

static void *bound_as_the_caretaker_does(void *unused) {
    (void)unused;
    for (; !is_open; bounded++) heap_bound_idle(8ull << 30, UINT64_MAX);
    return NULL;
}

/* The caretaker of a cache runs before the heap is opened: the thread sanitizer sees what it reads then. */
static void the_heap_is_opened_while_the_caretaker_bounds_it(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, bound_as_the_caretaker_does, NULL) == 0);
    while (!bounded) os_yield();
    CHECK(heap_open("numpy") == 0);
    is_open = true;
    pthread_join(thread, NULL);
    heap_forget_left(); /* as after opening without that thread */
}

static void wait_until_offered(void) {
    for (int tries = 0; now().idle_bytes; tries++) {
        CHECK(tries < WAIT_TRIES);
        os_sleep_ns(WAIT_NS);
    }
}

static void the_same_block_comes_back(void) {
    void *block = take(100000), *other;
    heap_free(block); /* starts the thread, and goes to the zone */
    CHECK(caretaker_is_running());
    block = take(100000);
    memset(block, 1, 100000);
    heap_free(block);
    CHECK(now().blocks == 0 && now().used_bytes == 0 && now().idle_bytes >= 100000);
    size_t stale;
    other = heap_allocate(99000, &stale);
    CHECK(other == block && stale == 99000);
    CHECK(now().blocks == 1 && heap_block_bytes(other) >= 100000);
    CHECK(take(200000) != block);
    heap_free(other);
    CHECK(take(64 * MIB) != block); /* never from cells */
    wait_until_offered();
    CHECK(now().offered_bytes >= 100000);
    CHECK(take(100000) == block); /* also when it came back from the zone */
    heap_free(block);
    vrange_heap_trim();
    CHECK(now().idle_bytes == 0);
}

/* Where sizes vary, one block serves them all. */
static void a_small_request_gets_the_block_that_was_freed_last(void) {
    void *block = take(120 * KIB), *other = take(200 * KIB);
    heap_free(other);
    heap_free(block);
    for (size_t kib = 64; kib < 120; kib++) {
        CHECK((other = take(kib * KIB)) == block && heap_block_bytes(other) == 120 * KIB);
        heap_free(other);
    }
    CHECK(take(59 * KIB * 4) != block);
    vrange_heap_trim();
}

/* Threads that are interrupted while each uses a block leave the next one what the processor's caches hold. */
static void several_small_requests_get_the_blocks_that_were_freed_last(void) {
    void *blocks[INTERRUPTED];
    uintptr_t least = UINTPTR_MAX, end = 0;
    for (int i = 0; i < INTERRUPTED; i++) {
        blocks[i] = take(1000 * KIB);
        if ((uintptr_t)blocks[i] < least) least = (uintptr_t)blocks[i];
        if ((uintptr_t)blocks[i] + 1000 * KIB > end) end = (uintptr_t)blocks[i] + 1000 * KIB;
    }
    for (int i = 0; i < INTERRUPTED; i++) heap_free(blocks[i]);
    for (int i = 0; i < INTERRUPTED; i++) {
        blocks[i] = take(600 * KIB);
        CHECK((uintptr_t)blocks[i] >= least && heap_block_bytes(blocks[i]) == 1000 * KIB);
        CHECK((uintptr_t)blocks[i] + 1000 * KIB <= end);
    }
    for (int i = 0; i < INTERRUPTED; i++) heap_free(blocks[i]);
    vrange_heap_trim();
}

/* Larger ones lie where the last one lay, too: otherwise each copy would be into memory that the processor's
 * cache has no more. */
static void large_blocks_of_all_sizes_lie_at_one_place(void) {
    uintptr_t least = UINTPTR_MAX, end = 0;
    uint64_t state = 88172645463325252ull;
    for (int i = 0; i < 200; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        const size_t bytes = MIB + (state >> 20) % (3 * MIB);
        void *block = take(bytes);
        if ((uintptr_t)block < least) least = (uintptr_t)block;
        if ((uintptr_t)block + bytes > end) end = (uintptr_t)block + bytes;
        heap_free(block);
    }
    CHECK(end - least <= 4 * MIB);
    vrange_heap_trim();
}

/* A program that frees larger blocks and keeps smaller ones must not need twice the memory. */
static void what_blocks_have_beyond_their_requests_is_bounded(void) {
    void *kept[KEPT];
    for (int round = 0; round < 2; round++) {
        const uint64_t before = now().used_bytes;
        for (int i = 0; i < KEPT; i++) {
            heap_free(take(124 * KIB));
            CHECK((kept[i] = take(64 * KIB)));
        }
        CHECK(now().used_bytes - before > (uint64_t)KEPT * 64 * KIB); /* some were served so */
        CHECK(now().used_bytes - before < (uint64_t)KEPT * 64 * KIB + 5 * MIB);
        for (int i = 0; i < KEPT; i++) heap_free(kept[i]); /* and what was lent is there again */
    }
    vrange_heap_trim();
}

/* What lies in cells does not keep the heap from using it for something else. */
static void cells_are_emptied_as_the_heap_grows(void) {
    void *blocks[4], *more[64];
    const uint64_t before = now().used_bytes;
    for (int i = 0; i < 4; i++) blocks[i] = take(900 * KIB);
    for (int i = 0; i < 4; i++) heap_free(blocks[i]);
    CHECK(now().idle_bytes >= 4 * 900 * KIB);
    for (int i = 0; i < 64; i++) CHECK((more[i] = take(3 * MIB / 2)));
    CHECK(now().used_bytes - before == 64 * 3 * MIB / 2);
    CHECK(now().idle_bytes < 4 * 900 * KIB);
    for (int i = 0; i < 64; i++) heap_free(more[i]);
}

static void a_second_free_is_refused(void) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        heap_free(take(MIB)); /* starts the child's thread */
        void *block = take(100000);
        heap_free(block);
        fclose(stderr);
        close(2);
        heap_free(block);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* ---- a fork ------------------------------------------------------------------------------------- */

static _Atomic int in_handler;
static void *_Atomic freed_in_handler;

/* Registered before the core's handlers, so it runs after them, while the gate is closed. */
static void before_fork(void) {
    if (!atomic_load(&freed_in_handler)) return;
    size_t stale;
    CHECK(!heap_allocate(33 * MIB, &stale)); /* larger than cells hold */
    heap_free(atomic_exchange(&freed_in_handler, NULL));
    atomic_fetch_add(&in_handler, 1);
}

__attribute__((constructor(101))) static void register_first(void) { pthread_atfork(before_fork, NULL, NULL); }

static void nothing_waits_for_a_fork(void) {
    const uint64_t before = now().blocks;
    atomic_store(&freed_in_handler, take(40 * MIB));
    IN_CHILD(heap_free(take(MIB)); CHECK(now().blocks == before));
    CHECK(atomic_load(&in_handler) == 1);
    heap_free(take(40 * MIB));
    CHECK(now().blocks == before);
}

static _Atomic bool over;
static uint64_t blocks_kept;
static uint64_t *_Atomic shared[SHARED];

static void *exchange_blocks(void *seed) {
    uint64_t state = 88172645463325252ull + (uintptr_t)seed;
    while (!atomic_load(&over)) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        const size_t bytes = HEAP_BLOCK_BYTES_LEAST + (state >> 20) % MIB, last = bytes / 8 - 1;
        uint64_t *block = take(bytes);
        if (block) block[0] = block[last] = state, block[1] = last;
        block = atomic_exchange(&shared[state % SHARED], block);
        if (!block) continue;
        CHECK(block[0] == block[block[1]]);
        heap_free(block);
    }
    return NULL;
}

static void go_on_in_child(void) {
    for (int i = 0; i < SHARED; i++) {
        uint64_t *block = atomic_exchange(&shared[i], NULL);
        if (!block) continue;
        CHECK(block[0] == block[block[1]]);
        heap_free(block);
    }
    for (int i = 0; i < 100; i++) {
        uint64_t *block = take(HEAP_BLOCK_BYTES_LEAST * (size_t)(1 + i % 9));
        CHECK(block);
        block[0] = 1;
        heap_free(block);
    }
    CHECK(now().blocks <= blocks_kept + 2 * THREADS); /* what the parent's threads held at the fork */
}

static void threads_exchange_blocks_while_the_process_forks(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, exchange_blocks, (void *)(i * 7919)) == 0);
    for (int i = 0; i < FORKS; i++) {
        IN_CHILD(go_on_in_child());
    }
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < SHARED; i++) {
        if (shared[i]) heap_free(shared[i]);
    }
}

int main(void) {
    the_heap_is_opened_while_the_caretaker_bounds_it();
    cpu_set_t all;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    stay_on_one_processor();
    the_same_block_comes_back();
    a_small_request_gets_the_block_that_was_freed_last();
    several_small_requests_get_the_blocks_that_were_freed_last();
    large_blocks_of_all_sizes_lie_at_one_place();
    what_blocks_have_beyond_their_requests_is_bounded();
    cells_are_emptied_as_the_heap_grows();
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
    a_second_free_is_refused();
    blocks_kept = now().blocks;
    nothing_waits_for_a_fork();
    threads_exchange_blocks_while_the_process_forks();
    CHECK(now().blocks == blocks_kept);
    vrange_heap_trim();
    CHECK(now().idle_bytes == 0);
    printf("heap: %d threads exchanged blocks during %d forks\n", THREADS, FORKS);
    return 0;
}
