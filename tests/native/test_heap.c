/* Blocks of the heap come, grow, shrink and go in random sizes: none overlaps another, what is told to be
 * zeros is, and the accounts are whole in the end, while the caretaker offers what is free, and discards it later.
 *
 * os_now_ns is replaced (--wrap), so that the time between offering and discarding is over at once. */
#include <stdatomic.h>
#include <string.h>

#include "base/gate.h"
#include "check.h"
#include "heap/heap.h"
#include "heap/heap_offer.h"
#include "os/os.h"

#define SLOTS 60
#define ROUNDS 6000
#define WORDS_STEP 509

#define LONG_NS 100000000000u /* until what is offered is discarded, for less than 10 GiB */

static _Atomic uint64_t ahead_ns;

uint64_t __real_vrange_os_now_ns(void);
uint64_t __wrap_vrange_os_now_ns(void);
uint64_t __wrap_vrange_os_now_ns(void) { return __real_vrange_os_now_ns() + atomic_load(&ahead_ns); }

static struct {
    uint64_t *words;
    size_t bytes;
    uint64_t seed;
} slots[SLOTS];

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t random_bytes(uint64_t random) {
    const size_t most = random >> 60 ? MIB / 2 : 9 * MIB;
    return HEAP_BLOCK_BYTES_LEAST + (random >> 8) % most;
}

static void stamp(int slot, uint64_t seed) {
    slots[slot].seed = seed;
    for (size_t i = 0; i < slots[slot].bytes / 8; i += WORDS_STEP)
        slots[slot].words[i] = word_at(seed, i);
}

static void check_stamp(int slot, size_t bytes) {
    for (size_t i = 0; i < bytes / 8; i += WORDS_STEP)
        CHECK(slots[slot].words[i] == word_at(slots[slot].seed, i));
}

static void take(int slot, uint64_t random) {
    size_t stale;
    slots[slot].bytes = random_bytes(random);
    slots[slot].words = heap_allocate(slots[slot].bytes, &stale);
    CHECK(slots[slot].words && heap_has(slots[slot].words));
    CHECK(heap_block_bytes(slots[slot].words) >= slots[slot].bytes);
    if (random & 1) heap_clear(slots[slot].words, stale);
    for (size_t i = random & 1 ? 0 : (stale + 7) / 8; i < slots[slot].bytes / 8; i += WORDS_STEP)
        CHECK(slots[slot].words[i] == 0);
    stamp(slot, random);
}

static void drop(int slot) {
    check_stamp(slot, slots[slot].bytes);
    heap_free(slots[slot].words);
    slots[slot].words = NULL;
}

static void resize(int slot, uint64_t random) {
    const size_t before = slots[slot].bytes, bytes = random_bytes(random);
    if (heap_resize(slots[slot].words, bytes)) {
        slots[slot].bytes = bytes;
        CHECK(heap_block_bytes(slots[slot].words) >= bytes);
    }
    check_stamp(slot, slots[slot].bytes < before ? slots[slot].bytes : before);
    stamp(slot, random);
}

static uint64_t resident(void) {
    vrange_heap_info info;
    vrange_heap_read(&info);
    return info.resident_bytes;
}

/* Returns in how many nanoseconds more is to be discarded. */
static uint64_t discard_later(void) {
    atomic_fetch_add(&ahead_ns, LONG_NS);
    gate_enter();
    const uint64_t due_ns = heap_discard_unused();
    gate_leave();
    return due_ns;
}

static void offer_all(void) {
    gate_enter();
    CHECK(!heap_offer(true));
    gate_leave();
}

/* What is offered stays as long as it may be used again soon, and then goes. */
static void discard_what_nobody_used(void) {
    size_t stale;
    heap_use_huge_pages(false);
    char *block = heap_allocate(64 * MIB, &stale), *other = heap_allocate(MIB, &stale);
    memset(block, 1, 64 * MIB);
    memset(other, 1, MIB);
    heap_free(block);
    offer_all();
    gate_enter();
    CHECK(heap_discard_unused() < LONG_NS);
    gate_leave();
    CHECK(resident() >= 65 * MIB); /* if nothing else needs memory, the kernel takes none */
    char *again = heap_allocate(16 * MIB, &stale);
    memset(again, 2, 16 * MIB);
    CHECK(discard_later() == UINT64_MAX);
    CHECK(resident() >= 17 * MIB && resident() < 18 * MIB);
    for (size_t i = 0; i < 16 * MIB; i += 4096) CHECK(again[i] == 2);
    heap_free(again);
    heap_free(other);
}

int main(void) {
    uint64_t state = 88172645463325252ull;
    size_t stale;
    vrange_heap_info info;
    CHECK(!heap_allocate(MIB, &stale)); /* not open yet */
    CHECK(heap_open("numpy") == 0 && heap_open("numpy") == 0);
    CHECK(!heap_allocate(HEAP_BLOCK_BYTES_LEAST - 1, &stale));
    CHECK(!heap_allocate(SIZE_MAX / 2, &stale));
    CHECK(!heap_has(&state));
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t random = next_random(&state);
        const int slot = (int)((random >> 33) % SLOTS);
        if (round % 512 == 0) heap_use_huge_pages(round / 512 % 2);
        if (round % 700 == 0) vrange_heap_trim();
        if (round % 40 == 0) offer_all();
        if (round % 90 == 0) discard_later();
        if (!slots[slot].words) take(slot, random);
        else if (random & 6) drop(slot);
        else resize(slot, random);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (slots[slot].words) drop(slot);
    }
    vrange_heap_read(&info);
    CHECK(info.blocks == 0 && info.used_bytes == 0);
    CHECK(info.idle_bytes + info.offered_bytes > 0);
    vrange_heap_trim();
    vrange_heap_read(&info);
    CHECK(info.resident_bytes == 0);
    discard_what_nobody_used();
    printf("heap: %d rounds, %llu MiB trimmed\n", ROUNDS, (unsigned long long)info.trimmed_bytes >> 20);
    return 0;
}
