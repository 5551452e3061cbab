/* The heap's peak. Blocks that grow do not lie idle beside the next one, which has to lie elsewhere; and two that
 * are needed in turn, and can't use each other's memory, meet few page faults.
 *
 * os_now_ns is replaced (--wrap), so that time passes between two steps and not while the test waits. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include "check.h"
#include "heap/heap.h"
#include "heap/heap_peak.h"
#include "heap/heap_state.h"
#include "os/os.h"

#define STEP_NS 15000000u /* a block of some MiB is idle for so long before the next step */
#define WORK_NS 45000000u /* with a block of some 50 MiB */
#define SMALLEST_BYTES (4 * MIB)
#define LARGEST_BYTES (128 * MIB)
#define ONE_BYTES (16 * MIB)
#define OTHER_BYTES (24 * MIB)
#define LARGE_BYTES (40 * MIB) /* glibc would map it */
#define ELSEWHERE_BYTES (512 * MIB)
#define QUIET_NS 3600000000000u
#define TURNS 60
#define TURNS_TO_LEARN 30

static _Atomic uint64_t ahead_ns;

uint64_t __real_vrange_os_now_ns(void);
uint64_t __wrap_vrange_os_now_ns(void);
uint64_t __wrap_vrange_os_now_ns(void) { return __real_vrange_os_now_ns() + atomic_load(&ahead_ns); }

static char *take(size_t bytes) {
    size_t stale;
    char *block = heap_allocate(bytes, &stale);
    CHECK(block);
    memset(block, 1, bytes);
    return block;
}

static void give(char *block) {
    heap_free(block);
    atomic_fetch_add(&ahead_ns, STEP_NS);
}

static size_t resident_bytes(void) {
    vrange_heap_info info;
    vrange_heap_read(&info);
    return info.resident_bytes;
}

static void check_growing(void) {
    CHECK(heap_open("numpy") == 0);
    size_t most = 0;
    char *before = take(SMALLEST_BYTES);
    for (size_t bytes = SMALLEST_BYTES * 2; bytes <= LARGEST_BYTES; bytes *= 2) {
        char *next = take(bytes); /* all that was freed before is smaller, even in one piece */
        const size_t resident = resident_bytes();
        if (resident > most) most = resident;
        give(before);
        before = next;
    }
    give(before);
    const size_t needed = LARGEST_BYTES + LARGEST_BYTES / 2;
    printf("heap: growing blocks need %zu MiB and have %zu MiB\n", needed / MIB, most / MIB);
    CHECK(most <= needed + needed / 10);
}

/* Each block is little larger than the one before, as in a loop that concatenates: then much gives way each second. */
static void check_growing_slowly(void) {
    CHECK(heap_open("numpy") == 0);
    size_t most = 0;
    char *before = take(LARGE_BYTES);
    for (size_t bytes = LARGE_BYTES + MIB; bytes <= 2 * LARGE_BYTES; bytes += MIB) {
        char *next = take(bytes);
        const size_t resident = resident_bytes();
        if (resident > most) most = resident;
        give(before);
        atomic_fetch_add(&ahead_ns, WORK_NS);
        before = next;
    }
    give(before);
    const size_t needed = 4 * LARGE_BYTES;
    printf("heap: slowly growing blocks need %zu MiB and have %zu MiB\n", needed / MIB, most / MIB);
    CHECK(most <= needed + needed / 10);
}

static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

/* Met are fewer page faults than once for both blocks, besides as many as take `share` of one processor. */
static void check_turns(size_t one_bytes, size_t other_bytes, double share) {
    CHECK(heap_open("numpy") == 0);
    char *before = take(MIB), *one = take(one_bytes), *between = take(MIB);
    give(one);
    long learned = 0;
    uint64_t start = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        if (turn == TURNS_TO_LEARN) {
            learned = faults();
            start = os_now_ns();
        }
        give(take(other_bytes));
        give(take(one_bytes));
    }
    const long met = faults() - learned, once = (long)((one_bytes + other_bytes) / os_page_bytes());
    printf("heap: blocks in turn: %ld faults in %d turns, each of %ld pages\n", met, TURNS - TURNS_TO_LEARN,
           once);
    CHECK((double)met < (double)once + share * (double)(os_now_ns() - start) / HEAP_FAULT_NS_A_PAGE);
    heap_free(before);
    heap_free(between);
}

static void check_medium_turns(void) { check_turns(ONE_BYTES, OTHER_BYTES, 0.05); }

static void check_large_turns(void) { check_turns(LARGE_BYTES, LARGE_BYTES + OTHER_BYTES, 0.5); }

/* As the interpreter's arenas do, which it maps itself. */
static void check_elsewhere(void) {
    CHECK(heap_open("numpy") == 0);
    give(take(LARGEST_BYTES));
    atomic_fetch_add(&ahead_ns, QUIET_NS); /* what gave way before no longer counts */
    const size_t idle = resident_bytes();
    heap_note_elsewhere(ELSEWHERE_BYTES);
    const size_t left = resident_bytes();
    printf("heap: %zu MiB idle, %zu MiB once the interpreter has %zu MiB\n", idle / MIB, left / MIB,
           ELSEWHERE_BYTES / MIB);
    CHECK(idle >= LARGEST_BYTES && left <= LARGEST_BYTES / 8);
    heap_note_elsewhere(0);
}

int main(void) {
    cpu_set_t here; /* each processor has a place of its own that it takes blocks from */
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    CHECK(sched_setaffinity(0, sizeof here, &here) == 0);
    void (*const checks[])(void) = {check_medium_turns, check_large_turns, check_growing, check_growing_slowly, check_elsewhere};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) check_in_child(checks[i]);
    return 0;
}
