/* A block is cut where its processor freed one last, while that is idle: there its lines may be in the processor's
 * caches. Without such a place it is cut from the smallest free span that is large enough. */
#define _GNU_SOURCE
#include <sched.h>

#include "check.h"
#include "heap/heap.h"
#include "heap/heap_left.h"
#include "heap/heap_offer.h"
#include "os/os.h"

/* Larger than those that wait in cells. */
#define SMALL_BYTES (2 * MIB)
#define LARGE_BYTES (6 * MIB)
#define MUCH_BYTES (64 * MIB)
#define ASKED_BYTES (SMALL_BYTES - MIB / 2)

static uint64_t *small, *large, *apart[3];

static uint64_t *take(size_t bytes) {
    size_t stale;
    uint64_t *block = heap_allocate(bytes, &stale);
    CHECK(block);
    write_words(block, bytes, bytes);
    return block;
}

/* Frees a block that stays idle. With enough memory left, the heap does not offer a freed block at once. */
static void free_to_idle(uint64_t *block) {
    heap_bound_idle(1ull << 40, UINT64_MAX);
    heap_free(block);
}

/* Two free spans that can't be joined: the large one was freed later. */
static void free_both(void) {
    apart[0] = take(MIB + 4096);
    small = take(SMALL_BYTES);
    apart[1] = take(MIB + 4096);
    large = take(LARGE_BYTES);
    apart[2] = take(MIB + 4096);
    CHECK(apart[0] < small && small < apart[1] && apart[1] < large && large < apart[2]);
    free_to_idle(small);
    free_to_idle(large);
}

static void free_rest(void) {
    for (int i = 0; i < 3; i++) heap_free(apart[i]);
}

static void takes_the_smallest(void) {
    uint64_t *one = take(ASKED_BYTES);
    CHECK(one == small);
    heap_free(one);
    free_rest();
}

static void takes_what_is_warm(void) {
    free_both();
    uint64_t *one = take(ASKED_BYTES);
    CHECK(one == large);
    uint64_t *other = take(ASKED_BYTES); /* the rest of the large span is not what was freed last */
    CHECK(other == small);
    heap_free(one);
    CHECK(take(LARGE_BYTES) == large); /* joined with that rest */
    heap_free(large);
    heap_free(other);
    free_rest();
}

static void takes_the_smallest_of_what_was_offered(void) {
    free_both();
    CHECK(!heap_offer(true));
    takes_the_smallest();
}

/* Blocks of its size would have no place if small ones lay in it. */
static void leaves_what_is_much_larger(void) {
    free_both();
    free_to_idle(take(MUCH_BYTES));
    takes_the_smallest();
}

/* The span that was freed last begins in the midst of another one. */
static void forgets_what_was_joined(void) {
    free_both();
    heap_free(apart[1]);
    uint64_t *whole = take(SMALL_BYTES + LARGE_BYTES);
    CHECK(whole == small);
    uint64_t *one = take(ASKED_BYTES);
    CHECK((char *)one >= (char *)whole + SMALL_BYTES + LARGE_BYTES || one + ASKED_BYTES / 8 <= whole);
    CHECK(wrong_words(whole, SMALL_BYTES + LARGE_BYTES, SMALL_BYTES + LARGE_BYTES) == 0);
    heap_free(one);
    heap_free(whole);
    heap_free(apart[0]);
    heap_free(apart[2]);
}

int main(void) {
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    CHECK(sched_setaffinity(0, sizeof here, &here) == 0);
    CHECK(heap_open("numpy") == 0);
    takes_what_is_warm();
    leaves_what_is_much_larger();
    takes_the_smallest_of_what_was_offered();
    forgets_what_was_joined();
    return 0;
}
