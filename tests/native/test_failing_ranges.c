/* Ranges and arenas while calls fail, in a fork too; see failing_calls.h. */
#include "failing_calls.h"

static void first_arena(void) {
    vrange_account *one = vrange_account_open("first", VRANGE_KIND_ARENA);
    vrange_arena *own;
    uint64_t handle;
    if (!one || !did(vrange_arena_open(4 * MIB, one, &own))) return;
    if (allocated(own, BYTES, 60, &handle)) {
        CHECK(vrange_release(handle) == VRANGE_OK);
        pin_and_check(handle, BYTES, 60);
    }
    vrange_arena_close(own);
    vrange_account_close(one);
}

static void growing_arena(void) {
    vrange_account *one = vrange_account_open("growing", VRANGE_KIND_CACHE);
    vrange_arena *own;
    uint64_t some[40];
    size_t count = 0;
    if (!one || !did(vrange_arena_open_growing((size_t)64 << 30, one, &own))) return;
    for (; count < 40 && allocated(own, count % 5 == 4 ? 2 * MIB : 64 << 10, count, &some[count]); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    vrange_arena_shed(own, MIB);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], i % 5 == 4 ? 2 * MIB : 64 << 10, i);
    vrange_free_all(some, count);
    vrange_address_space_return();
    while (vrange_arena_close_some(own, MIB) > 0) continue;
    vrange_account_close(one);
}

static void offered_ranges(void) {
    vrange_reserve_offer(1 << 20);
    for (uint64_t i = 0; i < RANGES; i++) pin_and_check(handles[i], BYTES, i);
    vrange_reserve_offer(1 << 20);
    /* As if memory were short. */
    for (uint64_t i = 0; i < RANGES; i++) CHECK(vrange_discard(handles[i]) <= VRANGE_PURGED);
    for (uint64_t i = 0; i < RANGES; i++) {
        vrange_range_info info;
        vrange_block blocks[4];
        CHECK(did(vrange_range_read(handles[i], &info)));
        const int result = vrange_pin_whole(handles[i]);
        if (result == VRANGE_OK) check_content(handles[i], BYTES, i);
        if (result == VRANGE_OK) CHECK(vrange_release(handles[i]) == VRANGE_OK);
        if (result == VRANGE_PURGED) CHECK(vrange_lost_blocks(handles[i], blocks, 4) >= -4095);
    }
    uint64_t lost[RANGES];
    vrange_arena_lost(arena, lost, RANGES);
}

static void partial_ranges(void) {
    if (vrange_pin(handles[0]) != VRANGE_OK) return;
    did(vrange_set_partial(handles[0], 1));
    CHECK(vrange_release(handles[0]) == VRANGE_OK);
    vrange_reserve_offer(1 << 20);
    CHECK(vrange_discard(handles[0]) <= VRANGE_PURGED);
    vrange_block blocks[4];
    const int result = vrange_pin(handles[0]);
    if (result == VRANGE_OK) check_content(handles[0], BYTES, 0);
    if (result == VRANGE_PURGED) {
        CHECK(vrange_lost_blocks(handles[0], blocks, 4) >= -4095);
        write_words(vrange_address(handles[0]), BYTES, 0);
        CHECK(vrange_refilled(handles[0]) == 0);
    }
    if (result >= 0) CHECK(vrange_release(handles[0]) == VRANGE_OK);
}

static void stores(void) {
    static uint64_t words[3 * 4096];
    write_words(words, sizeof words, 70);
    const vrange_part parts[] = {{words, 5 * 4096}, {words + 5 * 512, sizeof words - 5 * 4096}};
    for (int i = 0; i < 3; i++) {
        uint64_t handle;
        if (!did(vrange_store(arena, parts, 2, 1000, 16, &handle))) continue;
        check_content(handle, sizeof words, 70);
        vrange_used(handle, 2);
        CHECK(vrange_release(handle) == VRANGE_OK);
        pin_and_check(handle, sizeof words, 70);
        CHECK(vrange_free(handle) == VRANGE_OK);
    }
}

/* The kernel takes one page of a partial range. */
static void partial_loss(void) {
    if (vrange_pin(handles[1]) != VRANGE_OK) return;
    did(vrange_set_partial(handles[1], 1));
    char *const address = vrange_address(handles[1]);
    CHECK(vrange_release(handles[1]) == VRANGE_OK);
    for (int round = 0; round < 2; round++) {
        vrange_reserve_offer(1 << 20);
        madvise(address + (size_t)round * PAGE, PAGE, MADV_PAGEOUT);
        vrange_block blocks[4];
        const int result = vrange_pin(handles[1]);
        if (result == VRANGE_OK) check_content(handles[1], BYTES, 1);
        if (result == VRANGE_PURGED) {
            const int64_t count = vrange_lost_blocks(handles[1], blocks, 4);
            CHECK(count <= 4);
            /* Blocks that were not lost have their content. */
            uint64_t *const words = (uint64_t *)address;
            for (size_t i = 0; count >= 0 && i < BYTES / 8; i++) {
                bool is_lost = false;
                for (int64_t b = 0; b < count; b++)
                    is_lost |= i * 8 >= blocks[b].offset && i * 8 < blocks[b].offset + blocks[b].bytes;
                CHECK(is_lost || words[i] == word_at(1, i));
            }
            write_words(words, BYTES, 1);
            CHECK(vrange_refilled(handles[1]) == 0);
        }
        if (result < 0) return;
        CHECK(vrange_release(handles[1]) == VRANGE_OK);
        if (vrange_pin_whole(handles[1]) == VRANGE_OK) {
            check_content(handles[1], BYTES, 1);
            CHECK(vrange_release(handles[1]) == VRANGE_OK);
        }
    }
}

/* One page of an ordinary range: all of it is lost. */
static void whole_loss(void) {
    if (vrange_pin(handles[2]) != VRANGE_OK) return;
    char *const address = vrange_address(handles[2]);
    CHECK(vrange_release(handles[2]) == VRANGE_OK);
    vrange_reserve_offer(1 << 20);
    madvise(address + 2 * PAGE, PAGE, MADV_PAGEOUT);
    const int result = vrange_pin_whole(handles[2]);
    if (result == VRANGE_OK) {
        check_content(handles[2], BYTES, 2);
        CHECK(vrange_release(handles[2]) == VRANGE_OK);
    } else if (result == VRANGE_PURGED) {
        CHECK(vrange_pin_whole(handles[2]) != VRANGE_OK);
    }
    uint64_t lost[RANGES];
    vrange_arena_lost(arena, lost, RANGES);
    pin_and_check(handles[2], BYTES, 2);
}

/* Ranges that compete with each other alone, and keep the newest. */
static void own_aging(void) {
    vrange_account *one = vrange_account_open("aging", VRANGE_KIND_CACHE);
    vrange_arena *own;
    uint64_t some[30];
    uint32_t ranges;
    uint64_t pages;
    size_t count = 0;
    if (!one || !did(vrange_arena_open_growing((size_t)1 << 30, one, &own))) return;
    vrange_arena_age_alone(own);
    vrange_arena_set_aging(own, VRANGE_PACE_FAST, 1);
    for (; count < 30 && allocated(own, PAGE << (count % 4), count, &some[count]); count++) {
        CHECK(vrange_release(some[count]) == VRANGE_OK);
        vrange_used(some[count], UINT32_MAX);
        for (int i = 0; i < 40; i++) pin_and_check(some[count / 2], PAGE << (count / 2 % 4), count / 2);
    }
    vrange_arena_epoch(own);
    vrange_arena_competing(own, &ranges, &pages);
    vrange_arena_can_hold(own, (size_t)1 << 29);
    vrange_arena_can_hold(own, (size_t)1 << 40);
    vrange_reserve_offer(64 * PAGE);
    vrange_arena_shed(own, 16 * PAGE);
    for (size_t i = 0; i < count; i++) CHECK(vrange_uses(some[i]) < UINT32_MAX);
    vrange_arena_close(own);
    vrange_account_close(one);
}

/* More ranges than lie in a part of the table, of all sizes, freed in another order. */
static void many_ranges(void) {
    vrange_account *one = vrange_account_open("many", VRANGE_KIND_CACHE);
    vrange_arena *own;
    static uint64_t some[20000];
    size_t count = 0;
    if (!one || !did(vrange_arena_open_growing((size_t)16 << 30, one, &own))) return;
    for (; count < 20000 && did(vrange_allocate(own, PAGE << (count % 3), &some[count])); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    vrange_reserve_offer(100 * PAGE);
    vrange_arena_shed(own, 100 * PAGE);
    for (size_t i = 0; i < count; i += 2) CHECK(vrange_free(some[i]) == VRANGE_OK);
    vrange_address_space_return();
    uint64_t large;
    if (did(vrange_allocate(own, 200 * MIB, &large))) CHECK(vrange_free(large) == VRANGE_OK);
    if (did(vrange_allocate(own, 300 * MIB, &large))) CHECK(vrange_release(large) == VRANGE_OK);
    vrange_arena_close(own);
    vrange_account_close(one);
}

/* While a child shares the pages, the parent can't free what it offers. */
static void shared_with_child(void) {
    fflush(NULL);
    int ends[2];
    char byte;
    if (pipe(ends) < 0) return;
    const pid_t child = fork();
    if (child == 0) {
        inject_disarm();
        close(ends[1]);
        if (read(ends[0], &byte, 1) < 0) _exit(1);
        _exit(0);
    }
    vrange_reserve_offer(1 << 20);
    vrange_arena_shed(arena, 1 << 20);
    for (uint64_t i = 0; i < RANGES; i++) pin_and_check(handles[i], BYTES, i);
    vrange_reserve_offer(1 << 20);
    close(ends[0]);
    close(ends[1]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
}

/* The child may end with a message if it can't tell lost content from zeros. */
static void fork_reads(void) {
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) return;
    if (child == 0) {
        static uint64_t copy[65536];
        for (uint64_t i = 0; i < RANGES; i++) {
            if (vrange_is_away(handles[i]) != 1) {
                pin_and_check(handles[i], BYTES, i);
            } else if (vrange_read_away(handles[i], 0, copy, BYTES) == VRANGE_OK) {
                CHECK(wrong_words(copy, BYTES, i) == 0);
            }
        }
        uint64_t handle;
        if (allocated(arena, BYTES, 80, &handle)) CHECK(vrange_release(handle) == VRANGE_OK);
        if (array) {
            size_t failed_at;
            if (did(vrange_array_pin(array, 0, 4, NULL, &failed_at))) {
                CHECK(wrong_words(vrange_array_address(array), 16 * PAGE, 7) == 0);
                vrange_array_unpin(array, 0, 4);
            }
        }
        inject_disarm();
        _exit(0);
    }
    int status, got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) continue;
    if (got == child)
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
              (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
}

/* A child that is short of memory lets go of what it inherited. */
static void child_lets_go(void) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        static uint64_t copy[65536];
        vrange_reserve_offer(1 << 20);
        for (uint64_t i = 0; i < RANGES; i++) {
            if (i % 2) pin_and_check(handles[i], BYTES, i);
            else if (vrange_read_away(handles[i], 8, copy, BYTES - 8) == VRANGE_OK)
                CHECK(copy[0] == word_at(i, 1));
        }
        vrange_arena_shed(arena, UINT64_MAX / 2);
        vrange_reserve_offer(1 << 20);
        for (uint64_t i = 0; i < RANGES; i++) {
            const int result = vrange_read_away(handles[i], 0, copy, BYTES);
            if (result == VRANGE_OK) CHECK(wrong_words(copy, BYTES, i) == 0);
        }
        uint64_t lost[RANGES];
        vrange_arena_lost(arena, lost, RANGES);
        inject_disarm();
        _exit(0);
    }
    wait_for(child);
}

/* What a child reads of its parent's, in parts of any size, while the parent offers and loses it. */
static void child_reads_parts(void) {
    static const size_t parts[][2] = {{0, 8}, {4, 8}, {4092, 8}, {4096, 4096}, {4100, 8000}, {3, 32765}, {32768, 1}, {0, 65536}};
    int go[2], gone[2];
    char byte;
    vrange_reserve_offer(3 * BYTES);
    if (pipe(go) < 0) return;
    if (pipe(gone) < 0) return;
    const pid_t child = fork();
    if (child == 0) {
        static unsigned char copy[65536], wanted[32768];
        close(go[1]);
        for (int round = 0; round < 2; round++) {
            for (uint64_t i = 0; i < RANGES; i++) {
                write_words((uint64_t *)wanted, BYTES, i);
                for (size_t part = 0; part < sizeof parts / sizeof *parts; part++) {
                    const size_t from = parts[part][0], bytes = parts[part][1];
                    if (vrange_read_away(handles[i], from, copy, bytes) != VRANGE_OK) continue;
                    CHECK(from + bytes <= BYTES && memcmp(copy, wanted + from, bytes) == 0);
                }
            }
            if (round == 0 && (write(gone[1], "1", 1) != 1 || read(go[0], &byte, 1) < 0)) break;
        }
        inject_disarm();
        _exit(0);
    }
    close(go[0]);
    close(gone[1]);
    if (child > 0 && read(gone[0], &byte, 1) == 1) {
        vrange_reserve_offer(RANGES * BYTES);
        for (uint64_t i = 0; i < RANGES; i++) {
            if (i % 3 == 0) pin_and_check(handles[i], BYTES, i);
            if (i % 3 == 1) CHECK(vrange_discard(handles[i]) <= VRANGE_PURGED);
        }
        if (write(go[1], "1", 1) != 1) kill(child, SIGKILL);
    }
    close(go[1]);
    close(gone[0]);
    int status = 0, got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) continue;
    if (child > 0 && got == child) CHECK(status == 0 || WIFSIGNALED(status));
}

static const operation operations[] = {
    {"first arena", first_arena, .is_first = true},
    {"growing arena", growing_arena},
    {"offered ranges", offered_ranges},
    {"partial ranges", partial_ranges},
    {"stores", stores},
    {"fork reads", fork_reads},
    {"partial loss", partial_loss},
    {"whole loss", whole_loss},
    {"own aging", own_aging},
    {"shared with child", shared_with_child},
    {"child lets go", child_lets_go},
    {"child reads parts", child_reads_parts},
    {"many ranges", many_ranges},
};

int main(int count, char **arguments) {
    return try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
}
