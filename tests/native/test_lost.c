/* A range that is listed as lost is freed in the same moment by another thread: its owner.
 *
 * The linker puts the list's function in place of the core's, so that the other thread comes just before it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/gate.h"
#include "check.h"
#include "os/os.h"
#include "ranges/arena_lost.h"
#include "ranges/range_offer.h"
#include "ranges/range_table.h"

#define BYTES (64 * 1024)
#define RANGES 4
#define MOST 16
#define PATIENCE_MS 50 /* the free waits where the range is taken care of still */

static vrange_arena *arena;
static uint64_t freed; /* by the other thread; 0: none is */
static _Atomic bool has_freed;
static pthread_t thread;

static void *free_it(void *unused) {
    (void)unused;
    CHECK(vrange_free(freed) == VRANGE_OK);
    atomic_store(&has_freed, true);
    return NULL;
}

void __real_arena_list_lost(range *r);
void __wrap_arena_list_lost(range *r);

void __wrap_arena_list_lost(range *r) {
    if (freed && r == table_at((uint32_t)freed)) {
        CHECK(pthread_create(&thread, NULL, free_it, NULL) == 0);
        for (int waited = 0; !atomic_load(&has_freed) && waited < PATIENCE_MS; waited++) os_sleep_ns(1000000);
    }
    __real_arena_list_lost(r);
}

static uint64_t stored(void) {
    uint64_t handle;
    CHECK(vrange_allocate(arena, BYTES, &handle) == 0);
    write_words(vrange_address(handle), BYTES, handle);
    CHECK(vrange_release(handle) == VRANGE_OK);
    return handle;
}

static void discard(uint64_t handle) { CHECK(vrange_discard(handle) == VRANGE_OK); }

static void shed(uint64_t handle) {
    gate_enter();
    CHECK(range_shed(table_at((uint32_t)handle), handle & WORD_GENERATION));
    gate_leave();
}

static void lose_to_kernel(uint64_t handle) {
    range *r = table_at((uint32_t)handle);
    gate_enter();
    CHECK(range_offer_begin(r, handle & WORD_GENERATION));
    range_offer_end(r, true);
    CHECK(madvise(vrange_address(handle), BYTES, MADV_DONTNEED) == 0);
    CHECK(range_collect(r, handle & WORD_GENERATION));
    gate_leave();
}

static void is_freed_as_it_is_lost(void (*lose)(uint64_t handle)) {
    uint64_t handles[RANGES], lost[MOST];
    for (int i = 0; i < RANGES; i++) handles[i] = stored();
    freed = handles[1];
    atomic_store(&has_freed, false);
    lose(handles[1]);
    CHECK(pthread_join(thread, NULL) == 0);
    freed = 0;
    CHECK(vrange_pin_whole(handles[1]) == VRANGE_GONE);
    CHECK(vrange_arena_lost(arena, lost, MOST) == 0);
    handles[1] = stored(); /* the next one in its place is not lost, and neither is what was beside it */
    CHECK(vrange_arena_lost(arena, lost, MOST) == 0);
    for (int i = 0; i < RANGES; i++) {
        CHECK(vrange_pin_whole(handles[i]) == VRANGE_OK);
        CHECK(wrong_words(vrange_address(handles[i]), BYTES, handles[i]) == 0);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
        CHECK(vrange_free(handles[i]) == VRANGE_OK);
    }
}

static int check_rung(const char *rung) {
    vrange_account *account;
    CHECK(setenv("VRANGE_RUNG", rung, 1) == 0);
    if (vrange_rung() == 0) return 0; /* this machine does not allow it */
    arena = open_arena(16 * MIB, &account);
    is_freed_as_it_is_lost(discard);
    is_freed_as_it_is_lost(shed);
    if (vrange_rung() != VRANGE_RUNG_EAGER) is_freed_as_it_is_lost(lose_to_kernel);
    vrange_arena_close(arena);
    return 0;
}

int main(void) {
    const char *const rungs[] = {"refault", "sentinel", "eager"};
    check_rungs(rungs, sizeof rungs / sizeof *rungs, check_rung);
    return 0;
}
