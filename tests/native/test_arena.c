/* Ranges come and go in random sizes: none overlaps another, each is zeroed, and in the end the arena
 * is whole again. */
#include <string.h>

#include "check.h"

#define SLOTS 400
#define ROUNDS 20000

static uint64_t handles[SLOTS];
static size_t sizes[SLOTS];
static uint64_t seeds[SLOTS];

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void take(vrange_arena *arena, int slot, uint64_t random) {
    size_t bytes = vrange_page_bytes() * (1 + random % (random >> 40 & 7 ? 8 : 200));
    if (vrange_allocate(arena, bytes, &handles[slot]) != 0) {
        handles[slot] = 0; /* full just now */
        return;
    }
    uint64_t *words = vrange_address(handles[slot]);
    for (size_t i = 0; i < bytes / 8; i += 97) CHECK(words[i] == 0);
    sizes[slot] = bytes;
    seeds[slot] = random;
    write_words(words, bytes, random);
}

static void drop(int slot) {
    /* Had two ranges overlapped, one would have overwritten the other. */
    CHECK(wrong_words(vrange_address(handles[slot]), sizes[slot], seeds[slot]) == 0);
    uint64_t handle = handles[slot];
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_free(handle) == VRANGE_OK);
    CHECK(vrange_free(handle) == VRANGE_GONE);
    CHECK(vrange_pin(handle) == VRANGE_GONE);
    handles[slot] = 0;
}

int main(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(64 * MIB, &account);
    uint64_t random = 88172645463325252ull;
    for (int round = 0; round < ROUNDS; round++) {
        int slot = (int)(next_random(&random) % SLOTS);
        if (handles[slot]) drop(slot);
        else take(arena, slot, next_random(&random));
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (handles[slot]) drop(slot);
    }
    uint64_t whole;
    CHECK(vrange_allocate(arena, 64 * MIB, &whole) == 0);
    CHECK(vrange_allocate(arena, 1, &handles[0]) < 0);
    vrange_account_counters now;
    vrange_account_read(account, &now);
    CHECK(now.ranges == 1 && now.pinned_bytes == 64 * MIB && now.idle_bytes == 0);

    /* Closed, it stays for who has it pinned, and goes with the last pin. */
    char *address = vrange_address(whole);
    vrange_arena_close(arena);
    address[0] = 1;
    CHECK(vrange_pin(whole) == VRANGE_GONE);
    CHECK(vrange_release(whole) == VRANGE_OK);
    vrange_account_read(account, &now);
    CHECK(now.reserved_bytes == 0);
    return 0;
}
