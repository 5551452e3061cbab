/* Children read in their parent what they did not inherit, while the parent changes it: each read is whole and
 * of the time of the fork, or is refused. As a control, the same without the look at the owner's marks goes
 * wrong. */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>

#include "fork_support.h"
#include "ranges/owners.h"

#define RANGES 128
#define ROUNDS 12
#define READS 2000

static const uint64_t arena_bytes = 64 * MIB;

static vrange_arena *arena;
static vrange_account *account;
static uint64_t handles[RANGES], seeds[RANGES], next_seed = 1, draws = 88172645463325252ull;
static uint64_t content[4096], copy[4096];

/* What the children counted, in memory of all. */
static struct {
    _Atomic uint64_t whole, lost, wrong;
    _Atomic uint32_t ended;
} *seen;

/* ---- the look at the marks: the linker puts this in place of the core's ------------------------ */

static bool believes;

bool __real_owner_still_has(const owner *of, const range_mark *mark);
bool __wrap_owner_still_has(const owner *of, const range_mark *mark);

bool __wrap_owner_still_has(const owner *of, const range_mark *mark) {
    return believes || __real_owner_still_has(of, mark);
}

/* ---- the parent -------------------------------------------------------------------------------- */

static uint64_t draw(void) {
    draws ^= draws << 13;
    draws ^= draws >> 7;
    return draws ^= draws << 17;
}

static void store(size_t i) {
    seeds[i] = next_seed++;
    write_words(content, BYTES, seeds[i]);
    const vrange_part part = {content, BYTES};
    CHECK(vrange_store(arena, &part, 1, 0, 0, &handles[i]) == VRANGE_OK);
    CHECK(vrange_set_owner(handles[i], (uint32_t)i + 1) == VRANGE_OK);
    CHECK(vrange_release(handles[i]) == VRANGE_OK);
}

static void write_over(size_t i) {
    if (vrange_pin_whole(handles[i]) != VRANGE_OK) return;
    vrange_write_begins(handles[i], 1);
    seeds[i] = next_seed++;
    write_words(vrange_address(handles[i]), BYTES, seeds[i]);
    vrange_release(handles[i]);
}

static void change(size_t i) {
    switch (draw() % 4) {
    case 0: CHECK(vrange_free(handles[i]) == VRANGE_OK); break;
    case 1: write_over(i); return;
    case 2:
        CHECK(vrange_discard(handles[i]) == VRANGE_OK);
        CHECK(vrange_free(handles[i]) == VRANGE_OK);
        break;
    default:
        vrange_arena_shed(arena, BYTES);
        CHECK(vrange_free(handles[i]) == VRANGE_OK);
    }
    store(i);
}

/* ---- the child --------------------------------------------------------------------------------- */

static void read_one(size_t i) {
    const int result = vrange_read_away(handles[i], 0, copy, BYTES);
    if (result != VRANGE_OK) atomic_fetch_add(&seen->lost, 1);
    else if (wrong_words(copy, BYTES, seeds[i])) atomic_fetch_add(&seen->wrong, 1);
    else atomic_fetch_add(&seen->whole, 1);
}

/* From a word on that may be within a page, to one that may be the first of a page. */
static void read_part(size_t i) {
    const size_t words = BYTES / 8, first = draw() % words, count = 1 + draw() % (words - first);
    const int result = vrange_read_away(handles[i], first * 8, copy, count * 8);
    bool is_right = true;
    for (size_t at = 0; result == VRANGE_OK && at < count; at++)
        is_right = is_right && copy[at] == word_at(seeds[i], first + at);
    atomic_fetch_add(result != VRANGE_OK ? &seen->lost : is_right ? &seen->whole
                                                                  : &seen->wrong,
                     1);
}

static void read_while_it_changes(void) {
    memset(seen, 0, sizeof *seen);
    for (int round = 0; round < ROUNDS; round++) {
        atomic_store(&seen->ended, 0);
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) {
            for (int reads = 0; reads < READS; reads++) read_one(draw() % RANGES);
            atomic_store(&seen->ended, 1);
            _exit(0);
        }
        while (!atomic_load(&seen->ended)) change(draw() % RANGES);
        ends_well(child);
        for (size_t i = 0; i < RANGES; i++) {
            CHECK(vrange_free(handles[i]) == VRANGE_OK);
            store(i);
        }
    }
}

static void reads_are_whole_or_refused(void) {
    for (size_t i = 0; i < RANGES; i++) store(i);
    read_while_it_changes();
    CHECK(seen->wrong == 0 && seen->whole > 0 && seen->lost > 0);
    believes = true;
    read_while_it_changes();
    believes = false;
    CHECK(seen->wrong > 0);
}

/* Offers and takes back ranges, and has the kernel take some of them, as long as the child reads. */
static void offer_and_take(size_t i) {
    vrange_range_info info;
    switch (draw() % 4) {
    case 0: CHECK(vrange_reserve_offer(BYTES * (draw() % RANGES)) <= arena_bytes); return;
    case 1:
        if (vrange_range_read(handles[i], &info) != VRANGE_OK || info.state != VRANGE_STATE_IDLE) return;
        madvise(info.address, info.bytes / 2, MADV_PAGEOUT);
        return;
    default:
        if (vrange_pin_whole(handles[i]) == VRANGE_OK) vrange_release(handles[i]);
    }
}

static void reads_what_is_offered(void) {
    memset(seen, 0, sizeof *seen);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < RANGES; i++) {
            CHECK(vrange_free(handles[i]) == VRANGE_OK);
            store(i);
        }
        if (round % 2) vrange_reserve_offer(arena_bytes / 2);
        atomic_store(&seen->ended, 0);
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) {
            for (int reads = 0; reads < READS; reads++) read_part(draw() % RANGES);
            atomic_store(&seen->ended, 1);
            _exit(0);
        }
        while (!atomic_load(&seen->ended)) offer_and_take(draw() % RANGES);
        ends_well(child);
    }
    CHECK(seen->wrong == 0 && seen->whole > ROUNDS * READS / 4);
    for (size_t i = 0; i < RANGES; i++) {
        CHECK(vrange_free(handles[i]) == VRANGE_OK);
        store(i);
    }
}

/* ---- what is away ------------------------------------------------------------------------------ */

static void reads_what_it_did_not_inherit(void) {
    const uint64_t idle = handles[0], seed = seeds[0], held = handles[1], own = filled(arena, BYTES, 9);
    CHECK(vrange_release(own) == VRANGE_OK); /* no number: it is what a program refills */
    CHECK(vrange_pin_whole(held) == VRANGE_OK);
    CHECK(!vrange_is_away(idle));
    CHECK(vrange_read_away(idle, 0, copy, BYTES) == VRANGE_PURGED);
    IN_CHILD({
        CHECK(vrange_is_away(idle) && !vrange_is_away(held) && !vrange_is_away(own));
        CHECK(vrange_read_away(idle, 0, copy, BYTES) == VRANGE_OK && !wrong_words(copy, BYTES, seed));
        CHECK(vrange_read_away(idle, PAGE, copy, PAGE + 8) == VRANGE_OK);
        CHECK(copy[0] == word_at(seed, PAGE / 8) && copy[PAGE / 8] == word_at(seed, PAGE / 4));
        CHECK(vrange_read_away(idle, 0, copy, BYTES + 1) == VRANGE_PURGED);
        CHECK(vrange_read_away(idle, SIZE_MAX, copy, BYTES) == VRANGE_PURGED);
        CHECK(vrange_read_away(held, 0, copy, BYTES) == VRANGE_PURGED);
        CHECK(vrange_state(idle) == VRANGE_STATE_PURGED && vrange_pin_whole(idle) == VRANGE_PURGED);
        CHECK(vrange_is_away(idle)); /* a pin that failed leaves it away */
        IN_CHILD({
            CHECK(vrange_read_away(idle, 0, copy, BYTES) == VRANGE_OK && !wrong_words(copy, BYTES, seed));
            CHECK(vrange_discard(idle) == VRANGE_OK && !vrange_is_away(idle));
            CHECK(vrange_read_away(idle, 0, copy, BYTES) == VRANGE_PURGED);
        });
        CHECK(vrange_read_away(idle, 0, copy, BYTES) == VRANGE_OK);
        CHECK(vrange_pin(idle) == VRANGE_PURGED); /* it is the child's own from now on, and empty */
        CHECK(!vrange_is_away(idle) && is_zero(vrange_address(idle), BYTES));
        CHECK(vrange_release(idle) == VRANGE_OK);
        CHECK(vrange_free(handles[2]) == VRANGE_OK && !vrange_is_away(handles[2]));
        CHECK(vrange_read_away(handles[2], 0, copy, BYTES) == VRANGE_GONE);
    });
    CHECK(vrange_pin_whole(idle) == VRANGE_OK && has(idle, BYTES, seed));
    CHECK(vrange_release(idle) == VRANGE_OK && vrange_release(held) == VRANGE_OK);
}

/* On the sentinel rung the first word of each page is the sentinel while a range is offered: a part may begin or
 * end within that word. */
static int reads_any_part(const char *rung) {
    setenv("VRANGE_RUNG", rung, 1);
    arena = open_arena(4 * MIB, &account);
    store(0);
    vrange_reserve_offer(BYTES);
    CHECK(vrange_state(handles[0]) == VRANGE_STATE_OFFERED);
    IN_CHILD({
        const char *const bytes = (const char *)content;
        for (size_t from = 0; from < BYTES; from += from % PAGE < 12 || from % PAGE > PAGE - 12 ? 1 : PAGE - 24) {
            for (size_t count = 1; count <= 12 && from + count <= BYTES; count++) {
                CHECK(vrange_read_away(handles[0], from, copy, count) == VRANGE_OK);
                CHECK(memcmp(copy, bytes + from, count) == 0);
            }
            CHECK(vrange_read_away(handles[0], from, copy, BYTES - from) == VRANGE_OK);
            CHECK(memcmp(copy, bytes + from, BYTES - from) == 0);
        }
    });
    return 0;
}

/* The deepest generations find no place in the list of owners: what they did not inherit is lost. */
static void generation(int number) {
    for (int i = 0; i < number; i++) { /* each generation has stored one */
        const bool has_it = vrange_read_away(handles[i], 0, copy, BYTES) == VRANGE_OK;
        CHECK(has_it == (i < OWNERS_MOST));
        CHECK(!has_it || !wrong_words(copy, BYTES, seeds[i]));
    }
    if (number == OWNERS_MOST + 2) return;
    CHECK(vrange_free(handles[number]) == VRANGE_OK);
    store((size_t)number);
    IN_CHILD(generation(number + 1));
}

int main(void) {
    check_rungs((const char *const[]){"refault", "sentinel"}, 2, reads_any_part);
    seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED);
    arena = open_arena(arena_bytes, &account);
    reads_are_whole_or_refused();
    reads_what_is_offered();
    reads_what_it_did_not_inherit();
    IN_CHILD(generation(1));
    return 0;
}
