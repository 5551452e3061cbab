/* The states of a range: full and partial loss, sticky until refilled, told to every pin. */
#include <string.h>

#include "check.h"
#include "os/os.h"
#include "ranges/range_busy.h"
#include "ranges/range_offer.h"

#define BYTES (16 * vrange_page_bytes())

static int state(uint64_t handle) { return vrange_state(handle); }

/* Until the reserve has offered it. */
static void wait_offered(uint64_t handle) {
    for (int i = 0; i < 5000 && state(handle) != VRANGE_STATE_OFFERED; i++) os_sleep_ns(1000000);
    CHECK(state(handle) == VRANGE_STATE_OFFERED);
}

static void full(vrange_arena *arena) {
    uint64_t handle;
    vrange_block blocks[4];
    CHECK(vrange_allocate(arena, BYTES, &handle) == 0);
    write_words(vrange_address(handle), BYTES, 7);
    CHECK(vrange_discard(handle) == VRANGE_HELD);
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_pin(handle) == VRANGE_OK); /* nobody took it */
    CHECK(wrong_words(vrange_address(handle), BYTES, 7) == 0);
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_discard(handle) == VRANGE_OK);
    CHECK(state(handle) == VRANGE_STATE_PURGED);
    CHECK(vrange_pin_whole(handle) == VRANGE_PURGED);
    CHECK(state(handle) == VRANGE_STATE_PURGED); /* nothing was pinned */
    for (int again = 0; again < 3; again++) {
        CHECK(vrange_pin(handle) == VRANGE_PURGED); /* every pin is told */
        CHECK(vrange_lost_blocks(handle, blocks, 4) == 1);
        CHECK(blocks[0].offset == 0 && blocks[0].bytes == BYTES);
        if (again < 2) CHECK(vrange_release(handle) == VRANGE_OK);
    }
    write_words(vrange_address(handle), BYTES, 8);
    CHECK(vrange_refilled(handle) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_refilled(handle) < 0); /* only who has it pinned can know */
    CHECK(vrange_pin(handle) == VRANGE_OK);
    CHECK(wrong_words(vrange_address(handle), BYTES, 8) == 0);
    CHECK(vrange_free(handle) == VRANGE_OK); /* doomed: goes with the pin */
    CHECK(vrange_pin(handle) == VRANGE_GONE);
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_GONE);
}

static void taken_back(vrange_arena *arena) {
    uint64_t handle;
    CHECK(vrange_allocate(arena, BYTES, &handle) == 0);
    write_words(vrange_address(handle), BYTES, 9);
    CHECK(vrange_release(handle) == VRANGE_OK);
    wait_offered(handle);
    CHECK(range_take_back(range_of(handle), handle & WORD_GENERATION));
    CHECK(vrange_pin(handle) == VRANGE_OK);
    CHECK(wrong_words(vrange_address(handle), BYTES, 9) == 0);
    CHECK(!range_take_back(range_of(handle), handle & WORD_GENERATION)); /* it is not offered */
    CHECK(vrange_free(handle) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
}

static void partial(vrange_arena *arena) {
    const size_t page = vrange_page_bytes();
    uint64_t handle;
    vrange_block blocks[8];
    CHECK(vrange_allocate(arena, BYTES, &handle) == 0);
    char *address = vrange_address(handle);
    write_words((uint64_t *)(void *)address, BYTES, 3);
    CHECK(vrange_set_partial(handle, 1) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
    wait_offered(handle);
    /* The kernel may pass over what another processor has in a batch: asked until it took it. */
    for (int i = 0; i < 1000 && os_is_resident(address + 5 * page); i++)
        CHECK(madvise(address + 5 * page, 2 * page, MADV_PAGEOUT) == 0);
    CHECK(vrange_pin(handle) == VRANGE_PURGED);
    int64_t count = vrange_lost_blocks(handle, blocks, 8);
    CHECK(count >= 1 && blocks[0].offset == 5 * page);
    const uint64_t *words = (const uint64_t *)(void *)address;
    for (size_t i = 0; i < BYTES / 8; i++) {
        bool lost = false;
        for (int64_t b = 0; b < count; b++)
            lost |= i * 8 >= blocks[b].offset && i * 8 < blocks[b].offset + blocks[b].bytes;
        CHECK(words[i] == (lost ? 0 : word_at(3, i)));
    }
    CHECK(vrange_refilled(handle) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_free(handle) == VRANGE_OK);
}

/* As the reserve gives back ahead of demand: emptied by its batch, or where that failed by itself. */
static void taken(vrange_arena *arena, bool by_batch) {
    uint64_t handle;
    CHECK(vrange_allocate(arena, BYTES, &handle) == 0);
    char *address = vrange_address(handle);
    write_words((uint64_t *)(void *)address, BYTES, 5);
    range *r = range_of(handle);
    CHECK(!range_take_begin(r, handle & WORD_GENERATION)); /* it is pinned */
    CHECK(vrange_release(handle) == VRANGE_OK);
    wait_offered(handle);
    CHECK(!range_take_begin(r, (handle & WORD_GENERATION) ^ WORD_GENERATION)); /* it was another */
    CHECK(range_take_begin(r, handle & WORD_GENERATION));
    CHECK(!range_take_begin(r, handle & WORD_GENERATION));
    const struct iovec spans[] = {{address, BYTES / 2}, {address + BYTES / 2, BYTES / 2}};
    if (by_batch) CHECK(os_discard_many(spans, 2) == 0);
    range_take_end(r, by_batch);
    CHECK(state(handle) == VRANGE_STATE_PURGED);
    for (size_t at = 0; at < BYTES; at += vrange_page_bytes()) CHECK(!os_is_resident(address + at));
    uint64_t lost[2];
    CHECK(vrange_arena_lost(arena, lost, 2) == 1 && lost[0] == handle);
    CHECK(vrange_pin(handle) == VRANGE_PURGED);
    CHECK(vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_free(handle) == VRANGE_OK);
}

int main(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    CHECK(vrange_reserve_start(64 * MIB, 1000000, true) == 0);
    full(arena);
    if (vrange_rung() != VRANGE_RUNG_EAGER) {
        partial(arena);
        taken(arena, true);
        taken(arena, false);
        taken_back(arena);
    }
    vrange_account_counters now;
    vrange_account_read(account, &now);
    CHECK(now.ranges == 0 && now.idle_bytes == 0 && now.offered_bytes == 0);
    vrange_arena_close(arena);
    return 0;
}
