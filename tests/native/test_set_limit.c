/* Below a limit that the program has set for its resident set: what is discarded or offered instead, in which order,
 * and when nothing is. */
#include <stdlib.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "fork_support.h"
#include "reserve/below_set_limit.h"

#define SOME 16

static vrange_arena *arena;
static vrange_account *account;
static int rung;

static void make_idle(uint64_t *handles) {
    vrange_set_limit(0, 0); /* they would go at once */
    for (uint64_t i = 0; i < SOME; i++) {
        handles[i] = filled(arena, MIB, i);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
}

static void free_all(const uint64_t *handles) {
    for (int i = 0; i < SOME; i++) CHECK(vrange_free(handles[i]) == VRANGE_OK);
}

/* So much is left. `most` as vrange_set_limit takes it. */
static kept_free limited_to(uint64_t left, uint64_t most) {
    const uint64_t now = vrange_resident_bytes();
    CHECK(now > 0);
    vrange_set_limit(now + left, most ? now + most : 0);
    return look_below_set_limit(8 * MIB);
}

static uint64_t volatile_bytes(void) { return atomic_load(&stats_idle_bytes) + atomic_load(&stats_offered_bytes); }

static uint64_t returned(const kept_free *k) {
    gate_enter();
    const uint64_t to_offer = return_memory(k);
    gate_leave();
    return to_offer;
}

static uint64_t returned_before(size_t bytes) {
    gate_enter();
    const uint64_t to_offer = return_before_use(bytes);
    gate_leave();
    return to_offer;
}

/* What is missing is discarded, the least valuable first, and no more of it. */
static void ranges_are_discarded(void) {
    uint64_t handles[SOME];
    kept_free k = look_below_set_limit(8 * MIB);
    CHECK(k.left == UINT64_MAX && !k.is_short && returned(&k) == 0 && returned_before(MIB) == 0);
    k = limited_to(0, 0);
    CHECK(k.is_short && !k.by_offering && returned(&k) == 0); /* there is nothing */
    make_idle(handles);
    k = limited_to(0, 0);
    CHECK(k.is_short && returned(&k) == 0);
    CHECK(volatile_bytes() < SOME * MIB && volatile_bytes() > 0);
    k = limited_to(256 * MIB, 0);
    const uint64_t before = volatile_bytes();
    CHECK(!k.is_short && returned(&k) == 0 && volatile_bytes() == before);
    free_all(handles);
}

static void stores_look_themselves(void) {
    uint64_t handles[SOME];
    make_idle(handles);
    limited_to(256 * MIB, 0);
    CHECK(returned_before(MIB) == 0 && volatile_bytes() == SOME * MIB); /* enough is left */
    CHECK(returned_before(MIB) == 0 && volatile_bytes() == SOME * MIB);
    limited_to(0, 0);
    CHECK(returned_before(1) == 0 && volatile_bytes() < SOME * MIB); /* it is another limit */
    const uint64_t before = volatile_bytes();
    CHECK(returned_before(1) == 0 && volatile_bytes() == before); /* nothing was stored since */
    vrange_set_limit(0, 0);
    free_all(handles);
}

/* If the judge does not count offered bytes, they are offered. */
static void is_offered_instead(void) {
    uint64_t handles[SOME];
    make_idle(handles);
    kept_free k = limited_to(0, 256 * MIB);
    CHECK(k.is_short && k.by_offering == (rung > VRANGE_RUNG_EAGER));
    CHECK((returned(&k) > 0) == k.by_offering && (volatile_bytes() == SOME * MIB) == k.by_offering);
    limited_to(4096, 256 * MIB);
    CHECK((returned_before(64 * MIB) > 0) == k.by_offering);
    vrange_set_limit(0, 0);
    free_all(handles);
}

/* Blocks of arrays have no rank: they go last. If they have nothing to return, they are not asked for a while. */
static void arrays_go_last(void) {
    vrange_account *of_array = vrange_account_open("array", VRANGE_KIND_ARRAY);
    vrange_array *array, *closed;
    size_t failed;
    for (uint64_t most = 0; most <= 256 * MIB; most += 256 * MIB) { /* discarded, and offered */
        CHECK(vrange_array_open(MIB, MIB, vrange_regenerate_zero, NULL, of_array, &closed) == 0);
        CHECK(vrange_array_open(16 * MIB, MIB, vrange_regenerate_zero, NULL, of_array, &array) == 0);
        vrange_array_close(closed); /* the list of arrays has a hole */
        IN_CHILD(CHECK(wrong_words(vrange_array_address(array), 8, 0) == 1); vrange_array_resident_bytes(array));
        CHECK(vrange_array_pin(array, 0, SOME, NULL, &failed) == 0);
        vrange_array_unpin(array, 0, SOME);
        const uint64_t before = vrange_array_resident_bytes(array);
        kept_free k = limited_to(0, most);
        CHECK(k.is_short && (returned(&k) > 0) == k.by_offering);
        CHECK(vrange_array_resident_bytes(array) < before);
        for (int i = 0; i < 2; i++) {
            k = limited_to(0, most);
            returned(&k);
        }
        vrange_set_limit(0, 0);
        vrange_array_close(array);
        if (!most) usleep(1100000); /* until they are asked again */
    }
    vrange_account_close(of_array);
}

static int check_rung(const char *name) {
    setenv("VRANGE_RUNG", name, 1);
    rung = vrange_rung();
    arena = open_arena(64 * MIB, &account);
    CHECK(vrange_reserve_start(8 * MIB, UINT64_C(60000000000), 0) == 0); /* its thread does the same, but later */
    ranges_are_discarded();
    stores_look_themselves();
    is_offered_instead();
    if (rung == VRANGE_RUNG_REFAULT) arrays_go_last();
    return 0;
}

int main(void) {
    check_rungs((const char *const[]){"refault", "sentinel", "eager"}, 3, check_rung);
    return 0;
}
