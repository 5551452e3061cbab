/* Ranges and arrays: handles of nothing, sizes that can't be, words of what was not there, blocks that are not
 * what was compressed. */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "ranges/range_place.h"
#include "ranges/range_state.h"
#include "refusals.h"

static void refuses_handle(uint64_t handle) {
    vrange_range_info info;
    vrange_block block;
    char byte;
    CHECK(vrange_pin(handle) == VRANGE_GONE && vrange_pin_whole(handle) == VRANGE_GONE);
    CHECK(vrange_release(handle) == VRANGE_GONE && vrange_free(handle) == VRANGE_GONE);
    CHECK(vrange_discard(handle) == VRANGE_GONE && vrange_refilled(handle) == VRANGE_GONE);
    CHECK(vrange_set_partial(handle, 1) == VRANGE_GONE && vrange_set_cost(handle, 1) == VRANGE_GONE);
    CHECK(vrange_set_owner(handle, 1) == VRANGE_GONE && vrange_owner(handle) == 0);
    CHECK(vrange_range_read(handle, &info) == VRANGE_GONE && vrange_state(handle) == VRANGE_STATE_FREED);
    CHECK(vrange_bytes(handle) == 0 && vrange_address(handle) == NULL && vrange_uses(handle) == 0);
    CHECK(vrange_lost_blocks(handle, &block, 1) <= 0 && vrange_is_away(handle) == 0);
    CHECK(vrange_read_away(handle, 0, &byte, 1) == VRANGE_GONE);
    vrange_used(handle, 1);
    vrange_write_begins(handle, 0);
}

static void test_handles_of_nothing(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(4 * MIB, &account);
    uint64_t freed, held, more[3];
    CHECK(vrange_allocate(arena, PAGE, &freed) == 0 && vrange_free(freed) == VRANGE_OK);
    CHECK(vrange_release(freed) == VRANGE_OK);
    refuses_handle(freed);
    refuses_handle(0);
    refuses_handle(UINT64_MAX);
    refuses_handle(UINT64_C(0x7fffffff));
    refuses_handle(UINT64_C(0x7fffffff) << 32);
    CHECK(vrange_allocate(arena, PAGE, &held) == 0);
    CHECK(vrange_discard(held) == VRANGE_HELD);
    CHECK(vrange_release(held) == VRANGE_OK && vrange_set_partial(held, 1) == -EBUSY);
    CHECK(vrange_refilled(held) == -EBUSY);
    for (int i = 0; i < 3; i++) CHECK(vrange_allocate(arena, 0, &more[i]) == -EINVAL);
    CHECK(vrange_allocate(arena, SIZE_MAX / 2, &more[0]) == -ENOMEM);
    CHECK(vrange_allocate(arena, 8 * MIB, &more[0]) == -ENOMEM);
    CHECK(vrange_arena_can_hold(arena, SIZE_MAX / 2) == 0 && vrange_arena_can_hold(arena, MIB) == 1);
    vrange_arena_close(arena);
    refuses_handle(held);
}

static void test_sizes_that_can_not_be(void) {
    vrange_account *account = vrange_account_open("refused", VRANGE_KIND_ARRAY);
    vrange_arena *arena;
    vrange_array *array;
    CHECK(vrange_arena_open(0, account, &arena) == -EINVAL);
    CHECK(vrange_arena_open(SIZE_MAX - 1, account, &arena) == -ENOMEM);
    CHECK(vrange_arena_open_growing(0, account, &arena) == -EINVAL);
    static const size_t blocks[] = {0, 1, 4097, 3 * 4096, 4u << 20};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        CHECK(vrange_array_open(MIB, blocks[i], vrange_regenerate_zero, NULL, account, &array) == -EINVAL);
    CHECK(vrange_array_open(0, PAGE, vrange_regenerate_zero, NULL, account, &array) == -EINVAL);
    CHECK(vrange_array_open(SIZE_MAX - 1, PAGE, vrange_regenerate_zero, NULL, account, &array) == -ENOMEM);
    vrange_account_close(account);
}

/* What another process reads of a range was there if the range's word was such before and after. */
static void test_words_of_what_was_there(void) {
    const uint64_t generation = UINT64_C(7) << 32, pinned = generation | RESIDENT | WORD_PIN;
    CHECK(range_was_there(generation | RESIDENT, generation, false) && range_was_there(pinned, generation, true));
    CHECK(range_was_there(generation | OFFERED, generation, true));
    CHECK(!range_was_there(generation | OFFERED, generation, false));
    CHECK(!range_was_there(generation | RESIDENT, generation << 1, true));
    CHECK(!range_was_there(generation | RESIDENT | WORD_LOST, generation, true));
    CHECK(!range_was_there(generation | RESIDENT | WORD_PARTIAL, generation, true));
    CHECK(!range_was_there(generation | PURGED, generation, true) && !range_was_there(generation | BUSY, generation, true));
}

static void test_compressed_blocks(void) {
    enum { BLOCK = 4096,
           BLOCKS_HERE = 3 };
    static unsigned char content[BLOCKS_HERE * BLOCK], packed[BLOCKS_HERE][2 * BLOCK],
        back[BLOCKS_HERE * BLOCK];
    const void *blocks[BLOCKS_HERE];
    size_t sizes[BLOCKS_HERE];
    void *zlib = dlopen("libz.so.1", RTLD_NOW);
    if (!zlib) return;
    int (*compress)(unsigned char *, unsigned long *, const unsigned char *, unsigned long);
    *(void **)&compress = dlsym(zlib, "compress");
    CHECK(compress);
    for (size_t i = 0; i < sizeof content; i++) content[i] = (unsigned char)(i * i >> 7);
    for (int i = 0; i < BLOCKS_HERE; i++) {
        unsigned long bytes = sizeof packed[i];
        CHECK(compress(packed[i], &bytes, content + i * BLOCK, BLOCK) == 0);
        blocks[i] = packed[i];
        sizes[i] = bytes;
    }
    vrange_compressed all = {BLOCK, BLOCKS_HERE, blocks, sizes};
    CHECK(vrange_regenerate_compressed(back, 0, BLOCK, &all) == ELIBACC); /* not prepared */
    CHECK(vrange_compressed_prepare() == 0 && vrange_compressed_prepare() == 0);
    vrange_account *account = vrange_account_open("compressed", VRANGE_KIND_ARRAY);
    vrange_array *array;
    size_t failed;
    if (vrange_rung() == VRANGE_RUNG_REFAULT) { /* makes room for zlib's state */
        CHECK(vrange_array_open(sizeof content, BLOCK, vrange_regenerate_compressed, &all, account, &array) ==
              0);
        CHECK(vrange_array_pin(array, 0, BLOCKS_HERE, NULL, &failed) == 0);
        CHECK(memcmp(vrange_array_address(array), content, sizeof content) == 0);
        vrange_array_unpin(array, 0, BLOCKS_HERE);
        CHECK(vrange_regenerate_compressed(back, 0, sizeof back, &all) == 0 &&
              !memcmp(back, content, sizeof back));
        CHECK(vrange_regenerate_compressed(back, BLOCK, 2 * BLOCK, &all) == 0 &&
              !memcmp(back, content + BLOCK, BLOCK));
        CHECK(vrange_regenerate_compressed(back, 2 * BLOCK, 2 * BLOCK, &all) == ENODATA);
        packed[1][3] ^= 0x55;
        CHECK(vrange_regenerate_compressed(back, BLOCK, BLOCK, &all) == EBADMSG);
        sizes[0] = 1;
        CHECK(vrange_regenerate_compressed(back, 0, BLOCK, &all) == EBADMSG);
        CHECK(vrange_array_discard(array) == 0);
        CHECK(vrange_array_pin(array, 0, 2, NULL, &failed) == -EBADMSG || vrange_array_refaults(array) == 0);
        vrange_array_close(array);
    }
    vrange_account_close(account);
    vrange_pattern pattern = {content, 100};
    CHECK(vrange_regenerate_pattern(back, 150, 1000, &pattern) == 0 && back[0] == content[50] &&
          back[50] == content[0]);
    CHECK(vrange_regenerate_pattern(back, 0, 50, &pattern) == 0 && back[49] == content[49]);
}

int main(void) {
    IN_CHILD(test_compressed_blocks());
    IN_CHILD(test_handles_of_nothing());
    IN_CHILD(test_sizes_that_can_not_be());
    IN_CHILD(test_words_of_what_was_there());
    return 0;
}
