/* Whether the other side of a fork still has the pages of a range that was pinned. */
#include <stddef.h>
#include <sys/prctl.h>

#include "fork_support.h"
#include "ranges/range_shared.h"
#include "ranges/range_table.h"

static range *range_of(uint64_t handle) { return table_at((uint32_t)handle); }

/* A child that has the pages, and makes those its own whose bit is set: the first, the last. */
static pid_t begin_child_with(uint64_t handle, unsigned writes) {
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        volatile char *first = vrange_address(handle), *last = first + vrange_bytes(handle) - PAGE;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (writes & 1) *first = 1;
        if (writes & 2) *last = 1;
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;) pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1 && close(ready[0]) == 0 && close(ready[1]) == 0);
    return child;
}

static void end(pid_t child) { CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child); }

static void test_a_range(vrange_arena *arena, size_t bytes) {
    const uint64_t handle = filled(arena, bytes, 1);
    range *const r = range_of(handle);
    CHECK(!range_is_shared(r, true) && !range_is_shared(r, false)); /* there was no fork */
    for (unsigned writes = 0; writes < 4; writes++) {
        const bool is_shared = bytes > PAGE ? writes != 3 : writes == 0;
        const pid_t child = begin_child_with(handle, writes);
        CHECK(range_is_shared(r, false)); /* it was pinned: nothing else is known yet */
        CHECK(range_is_shared(r, true) == is_shared);
        CHECK(range_is_shared(r, false) == is_shared);
        end(child);
        CHECK(range_is_shared(r, false) == is_shared); /* as the last look found it */
        CHECK(!range_is_shared(r, true) && !range_is_shared(r, false));
    }
    const pid_t child = begin_child_with(handle, 0);
    *(volatile char *)vrange_address(handle) = 1; /* this process makes the first page its own */
    CHECK(range_is_shared(r, true) == (bytes > PAGE));
    end(child);
    CHECK(vrange_free(handle) == VRANGE_OK && vrange_release(handle) == VRANGE_OK);
}

/* Another thread may free the range and close its arena just before the look. */
static void test_a_range_that_is_gone(void) {
    range gone = {.pages = 1, .shared = true};
    CHECK(range_is_shared(&gone, false) && !range_is_shared(&gone, true) && !range_is_shared(&gone, false));
}

int main(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(4 * MIB, &account);
    test_a_range(arena, PAGE);
    test_a_range(arena, 2 * PAGE);
    test_a_range(arena, BYTES);
    test_a_range_that_is_gone();
    return 0;
}
