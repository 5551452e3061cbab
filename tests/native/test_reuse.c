/* Near the limit a store writes over the least valuable idle range. The owner of that range finds it lost. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "check.h"
#include "os/os.h"
#include "ranges/range_reuse.h"
#include "reserve/reserve.h"

#define BYTES ((size_t)64 << 10)
#define LENGTH (BYTES - 100) /* of the content: the rest of the last page is zeros */
#define RESERVE (2 * MIB)
#define PATIENCE_SECONDS 20
#define MUCH (512 * MIB)
#define ENTRIES 256u
#define ONE_USE 16u

typedef struct {
    _Atomic uint64_t handle; /* 0: lost */
    uint64_t seed;
    char *address;
} entry;

static entry entries[ENTRIES + 1]; /* by owner */
static uint64_t seeds = 1, content[BYTES / 8];
static vrange_arena *arena;
static vrange_account *account;

/* ---- what is free below the limits: the linker puts this in place of the core's ---------------- */

static _Atomic uint64_t free_now;

bool __wrap_headroom_below_limits(uint64_t enough, uint64_t *free_bytes);

bool __wrap_headroom_below_limits(uint64_t enough, uint64_t *free_bytes) {
    (void)enough;
    *free_bytes = atomic_load(&free_now);
    return true;
}

bool __wrap_headroom_is_below(uint64_t enough);

bool __wrap_headroom_is_below(uint64_t enough) { return atomic_load(&free_now) < enough; }

/* ---- a store that takes over pages does not keep the caretaker from its turn -------------------- */

bool __real_range_take_over(range *fresh, range *idle, uint64_t generation);
bool __wrap_range_take_over(range *fresh, range *idle, uint64_t generation);

bool __wrap_range_take_over(range *fresh, range *idle, uint64_t generation) {
    alarm(PATIENCE_SECONDS);
    reserve_offer(0); /* waits for the turn */
    alarm(0);
    return __real_range_take_over(fresh, idle, generation);
}

/* ---- a small cache ---------------------------------------------------------------------------- */

static vrange_account_counters counters(void) {
    vrange_account_counters now;
    vrange_account_read(account, &now);
    return now;
}

static uint64_t faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return (uint64_t)usage.ru_minflt;
}

/* Returns whether the store wrote over another entry's pages. */
static bool store(uint32_t owner, uint64_t *faulted) {
    entry *e = &entries[owner];
    e->seed = seeds++;
    write_words(content, LENGTH, e->seed);
    const vrange_part parts[] = {{content, 100}, {(char *)content + 100, LENGTH - 100}};
    const uint64_t before = counters().shed_total, faults_before = faults();
    uint64_t handle;
    CHECK(vrange_store(arena, parts, 2, 1000000, 0, &handle) == 0);
    *faulted = faults() - faults_before;
    e->address = vrange_address(handle);
    CHECK(memcmp(e->address, content, LENGTH) == 0);
    for (size_t i = LENGTH; i < BYTES; i++) CHECK(e->address[i] == 0);
    vrange_set_owner(handle, owner);
    CHECK(vrange_release(handle) == VRANGE_OK);
    atomic_store(&e->handle, handle);
    return counters().shed_total > before;
}

/* Forgets what was lost. If one of them had the place that `stored` has, sets *uses to how often it was used, and
 * returns true. */
static bool sweep(const entry *stored, uint32_t *uses) {
    uint64_t handles[64];
    bool found = false;
    for (size_t count; (count = vrange_arena_lost(arena, handles, 64));) {
        for (size_t i = 0; i < count; i++) {
            entry *e = &entries[vrange_owner(handles[i])];
            CHECK(e != entries && e->handle == handles[i]);
            CHECK(vrange_pin_whole(handles[i]) == VRANGE_PURGED);
            if (stored && e != stored && e->address == stored->address) {
                found = true;
                *uses = vrange_uses(handles[i]);
            }
            atomic_store(&e->handle, 0);
            CHECK(vrange_free(handles[i]) == VRANGE_OK);
        }
    }
    return found;
}

static void check_all(void) {
    for (uint32_t owner = 1; owner <= ENTRIES; owner++) {
        const uint64_t handle = entries[owner].handle;
        if (!handle || vrange_pin_whole(handle) != VRANGE_OK) continue;
        write_words(content, LENGTH, entries[owner].seed);
        CHECK(memcmp(vrange_address(handle), content, LENGTH) == 0);
        CHECK(vrange_release(handle) == VRANGE_OK);
    }
    sweep(NULL, NULL);
}

/* An owner without a range: the next one, or if all have one, that of `from` loses it. */
static uint32_t free_entry(uint32_t from) {
    for (uint32_t owner = from, left = ENTRIES; left; left--, owner = owner % ENTRIES + 1)
        if (!entries[owner].handle) return owner;
    CHECK(vrange_free(entries[from].handle) == VRANGE_OK);
    atomic_store(&entries[from].handle, 0);
    return from;
}

/* The thread has to notice the limit, and to rank. */
static void fill_up(uint64_t free_bytes) {
    uint64_t unused;
    for (uint32_t owner = 1; owner < ENTRIES; owner++) CHECK(!store(owner, &unused));
    atomic_store(&free_now, free_bytes);
    for (int tries = 0; !store(ENTRIES, &unused); tries++) {
        CHECK(tries < 5000);
        CHECK(vrange_free(entries[ENTRIES].handle) == VRANGE_OK);
        os_sleep_ns(1000000);
    }
    sweep(NULL, NULL);
}

/* ---- what is checked -------------------------------------------------------------------------- */

static void overwrites(void) {
    uint64_t pinned, replaced = 0, faulted = 0, exchanged = 0;
    CHECK(vrange_allocate(arena, BYTES, &pinned) == 0);
    vrange_set_owner(pinned, ENTRIES); /* never asked about: it is not lost */
    write_words(vrange_address(pinned), BYTES, 5);
    const char *place = vrange_address(pinned);
    for (int stores = 0; stores < 2000; stores++) {
        uint64_t one;
        const uint32_t owner = free_entry(stores % ENTRIES + 1);
        const bool is_replaced = store(owner, &one);
        uint32_t uses;
        if (sweep(&entries[owner], &uses)) {
            exchanged++;
            CHECK(is_replaced && uses <= ONE_USE);
        }
        if (stores % 4 == 0) vrange_used(entries[owner].handle, 10);
        replaced += is_replaced;
        faulted += is_replaced ? one : 0;
    }
    CHECK(exchanged == replaced);
#ifndef __SANITIZE_THREAD__ /* which makes the ranking slow, and has page faults of its own */
    CHECK(replaced > 300);
    CHECK(faulted < replaced); /* on the lower rungs new pages would be 16 faults each */
#endif
    CHECK(vrange_address(pinned) == place && wrong_words(vrange_address(pinned), BYTES, 5) == 0);
    check_all();
    vrange_free(pinned);
    vrange_release(pinned);
}

static _Atomic bool stop;

static void *discard(void *unused) {
    (void)unused;
    for (uint32_t n = 1; !atomic_load(&stop); n = n * 1103515245u + 12345u)
        vrange_discard(entries[1 + (n >> 8) % ENTRIES].handle); /* HELD and GONE are right, too */
    return NULL;
}

static void is_right_while_others_discard(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, discard, NULL) == 0);
    uint64_t unused, replaced = 0;
    /* It may go on for a while without any, while the other thread leaves nothing idle. */
    for (int stores = 0; stores < 3000 || (!replaced && stores < 1000000); stores++) {
        replaced += store(free_entry(stores % ENTRIES + 1), &unused);
        if (stores % 64 == 0) check_all();
        else sweep(NULL, NULL);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    CHECK(replaced > 0);
    check_all();
}

/* The owner of such ranges knows them by their addresses. */
static void leaves_ranges_without_owner(void) {
    vrange_account *other_account;
    vrange_arena *other = open_arena(8 * MIB, &other_account);
    uint64_t handle;
    for (int i = 0; i < 64; i++) {
        const vrange_part part = {content, BYTES};
        CHECK(vrange_store(other, &part, 1, 1000000, 0, &handle) == 0);
        CHECK(vrange_release(handle) == VRANGE_OK);
        os_sleep_ns(1000000);
    }
    vrange_account_counters now;
    vrange_account_read(other_account, &now);
    CHECK(now.ranges == 64 && now.shed_total == 0);
    vrange_arena_close(other);
}

static void keeps_while_memory_is_free(void) {
    uint64_t unused;
    atomic_store(&free_now, MUCH);
    for (uint32_t owner = 1; owner <= ENTRIES; owner++) {
        if (!entries[owner].handle) CHECK(!store(owner, &unused));
    }
    check_all();
}

static int check_rung(const char *rung) {
    CHECK(setenv("VRANGE_RUNG", rung, 1) == 0);
    if (vrange_rung() == 0) return 0; /* this machine does not allow it */
    const bool is_eager = vrange_rung() == VRANGE_RUNG_EAGER;
    account = vrange_account_open("test", VRANGE_KIND_CACHE);
    CHECK(account && vrange_arena_open_growing(64 * MIB, account, &arena) == 0); /* of several spans */
    atomic_store(&free_now, MUCH);
    CHECK(vrange_reserve_start(RESERVE, 1000000, false) == 0);
    /* On the eager rung the thread itself keeps the reserve free. */
    fill_up((is_eager ? RESERVE : 0) + BYTES / 2);
    overwrites();
    is_right_while_others_discard();
    leaves_ranges_without_owner();
    keeps_while_memory_is_free();
    for (uint32_t owner = 1; owner <= ENTRIES; owner++) vrange_free(entries[owner].handle);
    sweep(NULL, NULL);
    const vrange_account_counters now = counters();
    CHECK(now.ranges == 0 && now.idle_bytes == 0 && now.offered_bytes == 0 && now.purged_bytes == 0);
    vrange_arena_close(arena);
    return 0;
}

int main(void) {
    const char *const rungs[] = {"refault", "sentinel", "eager"};
    check_rungs(rungs, sizeof rungs / sizeof *rungs, check_rung);
    return 0;
}
