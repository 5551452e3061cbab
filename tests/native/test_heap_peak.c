/* The heap's peak. Blocks that grow do not lie idle beside the next one, which has to lie elsewhere; and two that
 * are needed in turn, and can't use each other's memory, soon meet no page fault.
 *
 * os_now_ns is replaced (--wrap), so that time passes between two steps and not while the test waits. */
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include "check.h"
#include "heap/heap.h"
#include "heap/heap_peak.h"
#include "os/os.h"

#define STEP_NS 15000000u /* a block of some MiB is idle for so long before the next step */
#define SMALLEST_BYTES (4 * MIB)
#define LARGEST_BYTES (128 * MIB)
#define ONE_BYTES (16 * MIB)
#define OTHER_BYTES (24 * MIB)
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

static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

static void check_turns(void) {
    CHECK(heap_open("numpy") == 0);
    char *before = take(MIB), *one = take(ONE_BYTES), *between = take(MIB);
    give(one);
    long learned = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        if (turn == TURNS_TO_LEARN) learned = faults();
        give(take(OTHER_BYTES));
        give(take(ONE_BYTES));
    }
    const long met = faults() - learned, once = (long)((ONE_BYTES + OTHER_BYTES) / os_page_bytes());
    printf("heap: blocks in turn: %ld faults in %d turns, each of %ld pages\n", met, TURNS - TURNS_TO_LEARN,
           once);
    CHECK(met < once);
    heap_free(before);
    heap_free(between);
}

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
    void (*const checks[])(void) = {check_turns, check_growing, check_elsewhere};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) check_in_child(checks[i]);
    return 0;
}
