/* A fork where system calls are refused: the child has what is pinned, and never takes for content what
 * is none. */
#include "fork_support.h"

#include <errno.h>

#include "os/os.h"
#include "os/os_kept_descriptors.h"

static struct {
    bool map, larger, wipe, keep, keep_all, discard, over, open, registering;
} refused;

#define WRAP(result, name, failure, parameters, arguments) \
    result __real_##name parameters;                       \
    result __wrap_##name parameters;                       \
    result __wrap_##name parameters { return failure ? failed_##name : __real_##name arguments; }

#define failed_os_map NULL
#define failed_os_map_larger NULL
#define failed_os_wipe_on_fork -EPERM
#define failed_os_keep_on_fork -ENOMEM
#define failed_os_discard_many -EPERM
#define failed_os_map_over -ENOMEM
#define failed_os_userfault_open -EPERM
#define failed_os_userfault_register -ENOMEM

WRAP(void *, os_map, refused.map, (size_t bytes), (bytes))
WRAP(void *, os_map_larger, refused.larger, (void *at, size_t bytes, size_t more), (at, bytes, more))
WRAP(int, os_wipe_on_fork, refused.wipe, (void *at, size_t bytes), (at, bytes))
/* Of a part of the area only: as where there may be no more mappings. */
WRAP(int, os_keep_on_fork, (refused.keep_all || (refused.keep && bytes <= MIB)), (void *at, size_t bytes), (at, bytes))
WRAP(int, os_discard_many, refused.discard, (const struct iovec *spans, size_t count), (spans, count))
WRAP(int, os_map_over, refused.over, (void *at, size_t bytes), (at, bytes))
WRAP(int, os_userfault_open, refused.open, (os_held * held), (held))
WRAP(int, os_userfault_register, refused.registering, (int descriptor, void *at, size_t bytes),
     (descriptor, at, bytes))

enum { RANGES = 40 };

/* Where `everything` is inherited, idle ranges may be there; what they are must be told. */
static void check(bool everything) {
    vrange_account *account;
    vrange_arena *arena = open_arena(256 * MIB, &account);
    uint64_t handles[RANGES], large = filled(arena, 4 * MIB, 99);
    for (uint64_t i = 0; i < RANGES; i++) {
        handles[i] = filled(arena, BYTES, i);
        if (i % 2) CHECK(vrange_release(handles[i]) == VRANGE_OK);
        if (i % 8 == 5) CHECK(vrange_discard(handles[i]) == VRANGE_OK);
    }
    CHECK(vrange_release(large) == VRANGE_OK);
    IN_CHILD({
        for (uint64_t i = 0; i < RANGES; i++) {
            int result = vrange_pin(handles[i]);
            if (i % 2 == 0) CHECK(result == VRANGE_OK);
            else CHECK(result == VRANGE_PURGED || (everything && result == VRANGE_OK && i % 8 != 5));
            if (result == VRANGE_OK) CHECK(has(handles[i], BYTES, i));
            else CHECK(is_zero(vrange_address(handles[i]), BYTES));
        }
        CHECK(everything || vrange_pin(large) == VRANGE_PURGED);
        CHECK(vrange_free(large) == VRANGE_OK);
        if (!everything) CHECK(vrange_release(large) == VRANGE_OK);
        for (uint64_t i = 0; i < 20; i++) {
            uint64_t own;
            CHECK(vrange_allocate(arena, MIB, &own) == 0);
            CHECK(is_zero(vrange_address(own), MIB));
            write_words(vrange_address(own), MIB, i);
            CHECK(has(own, MIB, i) && vrange_release(own) == VRANGE_OK);
            int result = vrange_pin(own);
            CHECK(result == VRANGE_PURGED || (result == VRANGE_OK && has(own, MIB, i)));
        }
        for (uint64_t i = 0; i < RANGES; i += 2) CHECK(has(handles[i], BYTES, i));
    });
    for (uint64_t i = 0; i < RANGES; i++) {
        int result = vrange_pin(handles[i]);
        CHECK(result == (i % 8 == 5 ? VRANGE_PURGED : VRANGE_OK));
        if (result == VRANGE_OK) CHECK(has(handles[i], BYTES, i));
    }
    vrange_arena_close(arena);
}

/* First, as the lists are kept from one fork to the next. Not of the child's own counters, which it
 * can't do without. */
static void without_memory_for_the_lists(void) {
    vrange_account *account;
    open_arena(MIB, &account);
    refused.map = true;
    check(true);
    refused.open = true;
    check(true);
    refused.map = refused.open = false;
}

static void aborts(void) {
    int status;
    const pid_t child = fork();
    if (child == 0) _exit(0);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* Where nothing makes its memory its own, the child ends before it can take zeros for content, and says so. */
static void ends_the_child(int ranges) {
    vrange_account *account;
    vrange_arena *arena = open_arena(256 * MIB, &account);
    for (int i = 0; i < ranges; i++) { /* pinned ones and others in turns */
        const uint64_t handle = filled(arena, BYTES, (uint64_t)i);
        if (i % 2) CHECK(vrange_release(handle) == VRANGE_OK);
    }
    CHECK(freopen("/dev/null", "w", stderr));
    refused.wipe = refused.discard = refused.over = true;
    aborts();
    refused.wipe = refused.discard = refused.over = false;
}

/* What is pinned can't be kept, nor can the mark be removed that wipes it. */
static void ends_without_what_is_pinned(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(256 * MIB, &account);
    const uint64_t held = filled(arena, BYTES, 1);
    CHECK(freopen("/dev/null", "w", stderr));
    refused.keep_all = true;
    aborts();
    refused.keep_all = false;
    CHECK(has(held, BYTES, 1));
    /* The mark is still there, and the next fork has no memory for the lists by which it would be removed. */
    for (int i = 0; i < 1000; i++) filled(arena, PAGE, 2);
    refused.larger = true;
    aborts();
    refused.larger = false;
}

int main(void) {
    const int rung = vrange_rung();
    without_memory_for_the_lists();
    IN_CHILD(ends_without_what_is_pinned());
    IN_CHILD(ends_the_child(4));
    IN_CHILD(ends_the_child(2000));
    for (int what = 0; what < 32; what++) {
        refused.wipe = what & 1;
        refused.keep = what & 2;
        refused.discard = what & 4;
        if (what < 8) check(false);
        vrange_account *account;
        vrange_arena *arena = open_arena(16 * MIB, &account);
        uint64_t held = filled(arena, BYTES, 1), idle = filled(arena, BYTES, 2);
        CHECK(vrange_release(idle) == VRANGE_OK);
        refused.open = what & 8;
        refused.registering = what & 16;
        IN_CHILD({
            const bool falls = rung == VRANGE_RUNG_REFAULT && (refused.open || refused.registering);
            CHECK(vrange_rung() == (falls ? VRANGE_RUNG_SENTINEL : rung));
            refused.open = refused.registering = false;
            CHECK(has(held, BYTES, 1));
            CHECK(vrange_pin(idle) == VRANGE_PURGED && is_zero(vrange_address(idle), BYTES));
            uint64_t own = filled(arena, BYTES, 3);
            CHECK(has(own, BYTES, 3));
            IN_CHILD(CHECK(has(held, BYTES, 1) && has(own, BYTES, 3)));
        });
        refused.wipe = refused.keep = refused.discard = refused.open = refused.registering = false;
        CHECK(has(held, BYTES, 1) && vrange_pin(idle) == VRANGE_OK && has(idle, BYTES, 2));
        vrange_arena_close(arena);
    }
    return 0;
}
