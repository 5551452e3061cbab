/* Counters: numbers that no list has, names and places of segments, more accounts than have a place of their
 * own, and counting before there is anything to count in. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/stat.h>

#include "counters/stats.h"
#include "os/os.h"
#include "os/os_main_stack.h"
#include "refusals.h"

static void test_numbers_that_no_list_has(void) {
    for (int list = -1; list < 12; list++) {
        CHECK(vrange_name(list, -1) == NULL && vrange_name(list, 1000) == NULL);
        for (int number = 0; number < 8; number++) vrange_name(list, number);
    }
    CHECK(vrange_name(VRANGE_NAMES_RUNGS, VRANGE_RUNG_EAGER) && !vrange_name(100, 0));
    vrange_histogram histogram;
    for (int i = 0; i < 4; i++) {
        const int kind = i == 0   ? -1
                         : i == 1 ? VRANGE_KINDS
                                  : 0,
                  latency = i == 2   ? -1
                            : i == 3 ? VRANGE_LATENCIES
                                     : 0;
        vrange_latency_record(kind, latency, 1);
        vrange_latency_read(kind, latency, &histogram);
    }
    for (int which = -1; which <= VRANGE_ALLOCATORS; which++) {
        const bool is_one = which >= 0 && which < VRANGE_ALLOCATORS;
        CHECK(!vrange_allocator_known(which) == !is_one);
        CHECK(is_one || !vrange_allocator_name(which));
        vrange_allocator_is_of_thread(which);
        CHECK(is_one || vrange_allocator_unused(which) == -EINVAL);
        CHECK(is_one || vrange_allocator_release(which) == -EINVAL);
        if (is_one && !vrange_allocator_name(which)) {
            CHECK(vrange_allocator_unused(which) == -ENOTSUP && vrange_allocator_release(which) == -ENOTSUP);
        }
    }
    CHECK(vrange_allocator_release(VRANGE_ALLOCATORS - 1) >= 0); /* glibc */
    static char report[1 << 16];
    CHECK(vrange_glibc_report(report, sizeof report) > 0);
    vrange_glibc_report(report, 16);
    vrange_glibc_report(report, 0);
    for (int version = 1; version <= 2; version++) {
        CHECK(vrange_cgroup_file(version, VRANGE_CGROUP_USAGE) &&
              vrange_cgroup_file(version, VRANGE_CGROUP_LIMIT));
        CHECK(!vrange_cgroup_file(version, -1) && !vrange_cgroup_file(version, 9));
    }
    CHECK(!vrange_rung_refusal(0) && !vrange_rung_refusal(9));
    for (int i = -1; i < 9; i++)
        vrange_pressure_acted(i, VRANGE_PRESSURE_DONE, 1), vrange_pressure_acted(0, i, 1);
    CHECK(vrange_account_open("kind", VRANGE_KINDS - 1));
}

static void test_names_of_segments(void) {
    static const char *const not[] = {"",
                                      "1",
                                      "-1.stats",
                                      "1-.stats",
                                      "12345678901-1.stats",
                                      "1-1.stat",
                                      "1-1.stats2",
                                      "a-1.stats",
                                      "1-123456789012345678901.stats"};
    for (size_t i = 0; i < sizeof not / sizeof *not; i++) CHECK(!vrange_is_segment_name(not[i]));
    CHECK(vrange_is_segment_name("1-1.stats") && vrange_is_segment_name("4194304-99999999999.stats"));
    char small[4], where[TEXT_BYTES];
    CHECK(vrange_request_path(small, sizeof small) == -ENOENT); /* nothing is counted yet */
    const int without_room = vrange_segment_path() ? -ENAMETOOLONG : -ENOENT;
    CHECK(vrange_request_path(small, sizeof small) == without_room);
    CHECK(vrange_segment_directory(VRANGE_SEGMENT_PLACES, where, sizeof where) == -EINVAL);
    CHECK(vrange_segment_is_in_use("/nowhere") < 0 && vrange_segment_is_in_use("/proc/self/stat") < 0);
}

static void places_with(const char *told, const char *runtime, bool has_file) {
    char where[TEXT_BYTES], small[4];
    if (told) setenv("VRANGE_RUNTIME_DIR", told, 1);
    else unsetenv("VRANGE_RUNTIME_DIR");
    if (runtime) setenv("XDG_RUNTIME_DIR", runtime, 1);
    else unsetenv("XDG_RUNTIME_DIR");
    for (size_t i = 0; i < VRANGE_SEGMENT_PLACES; i++) {
        vrange_segment_directory(i, where, sizeof where);
        const int result = vrange_segment_directory(i, small, sizeof small);
        CHECK(result == -ENOENT || result == -ENAMETOOLONG);
    }
    CHECK(!vrange_segment_path() == !has_file && !vrange_segment_refusal() == has_file);
    vrange_segment_keep(0);
    vrange_account *account;
    vrange_arena_close(open_arena(MIB, &account));
}

/* Where the counts lie, or why they lie in private memory. */
static void test_places_of_segments(void) {
    char place[160], file[192], wide[192];
    static char long_name[TEXT_BYTES];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[0] = '/';
    snprintf(place, sizeof place, "%s/place", directory);
    snprintf(file, sizeof file, "%s/file", directory);
    snprintf(wide, sizeof wide, "%s/wide", directory);
    close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    CHECK(mkdir(wide, 0777) == 0 && chmod(wide, 0777) == 0);
    IN_CHILD(places_with(place, NULL, true));
    IN_CHILD(places_with(file, NULL, false)); /* no directory */
    IN_CHILD(places_with(wide, NULL, false)); /* others may write there */
    IN_CHILD(places_with(long_name, NULL, false)); /* does not fit */
    IN_CHILD(places_with("/proc/1", NULL, false)); /* refuses files, or belongs to another */
    IN_CHILD(places_with("", directory, true)); /* the session's */
    IN_CHILD(places_with(NULL, "relative", true)); /* none: memory's */
    IN_CHILD(places_with(NULL, "/nowhere/at/all", true));
    IN_CHILD(places_with(NULL, long_name, true));
}

/* A directory of another user is no place for counts. */
static void test_a_place_of_another_user(void) {
    char place[160];
    if (geteuid() != 0) return;
    snprintf(place, sizeof place, "%s/of-others.d", directory);
    CHECK(mkdir(place, 0700) == 0 && chown(place, 12345, 0) == 0);
    IN_CHILD(places_with(place, NULL, false));
    CHECK(os_is_directory(place) && !os_is_directory("/nowhere"));
}

/* More accounts than have a place of their own: the others are counted in overflow slots, in a child too. */
static void test_many_accounts(void) {
    enum { MANY = 700 };
    static vrange_account *all[MANY];
    static vrange_account_counters read[2 * MANY];
    CHECK(vrange_accounts_read(read, MANY) == 0); /* nothing is counted yet */
    CHECK(!vrange_account_open("none", -1) && !vrange_account_open("none", VRANGE_KINDS));
    for (int round = 0; round < 2; round++) {
        char name[16];
        for (int i = 0; i < MANY; i++) {
            snprintf(name, sizeof name, "%d", i);
            all[i] = vrange_account_open(name, i % VRANGE_KINDS);
            CHECK(all[i]);
        }
        vrange_arena *arena;
        uint64_t handle;
        CHECK(vrange_arena_open(MIB, all[MANY - 1], &arena) == 0 && vrange_allocate(arena, PAGE, &handle) == 0);
        const size_t count = vrange_accounts_read(read, 2 * MANY);
        CHECK(count > 0 && vrange_accounts_read(read, 3) == count && vrange_accounts_read(read, 0) == count);
        uint64_t pinned = 0;
        CHECK(vrange_accounts_read(read, 2 * MANY) == count);
        for (size_t i = 0; i < count && i < 2 * MANY; i++) pinned += read[i].pinned_bytes;
        CHECK(pinned == PAGE);
        IN_CHILD(uint64_t inherited = 0; CHECK(vrange_accounts_read(read, 2 * MANY) > 0);
                 for (size_t i = 0; i < count; i++) inherited += read[i].pinned_bytes;
                 CHECK(inherited == PAGE));
        CHECK(vrange_release(handle) == VRANGE_OK);
        vrange_arena_close(arena);
        for (int i = 0; i < MANY; i++) vrange_account_close(all[i]);
    }
}

/* Nothing is counted before the first account. */
static void test_counts_without_accounts(void) {
    vrange_histogram histogram;
    stats_stack_returned(1), stats_trimmed(), stats_stack_used(1, 1), stats_rung_changed();
    stats_pressure_level(VRANGE_PRESSURE_NORMAL);
    vrange_pressure_acted(0, VRANGE_PRESSURE_DONE, 1);
    vrange_latency_read(0, 0, &histogram);
    CHECK(vrange_account_open("first", VRANGE_KIND_ARENA));
    stats_stack_used(1, 0), stats_stack_used(64, 128), stats_stack_used(1, 128), stats_stack_used(100, 128);
    stats_stack_returned(1), stats_trimmed(), stats_rung_changed(), stats_pressure_level(VRANGE_PRESSURE_NORMAL);
}

/* Where not even private memory is left, nothing is counted, and all else goes on. */
static void test_counts_without_memory(void) {
    struct rlimit before, none;
    uint64_t used, data;
    vrange_histogram histogram;
    vrange_account_counters read;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0 && os_address_space(&used, &data) == 0);
    none = before;
    none.rlim_cur = used;
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    stats_stack_returned(1), stats_trimmed(), stats_stack_used(1, 1), stats_rung_changed();
    stats_pressure_level(VRANGE_PRESSURE_NORMAL);
    stats_pressure_acted(0, VRANGE_PRESSURE_DONE, 1);
    vrange_latency_record(0, 0, 1);
    vrange_latency_read(0, 0, &histogram);
    vrange_segment_keep(1);
    CHECK(!vrange_account_open("none", VRANGE_KIND_ARENA) && vrange_accounts_read(&read, 1) == 0);
    CHECK(!vrange_segment_path() && vrange_segment_refusal());
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(vrange_account_open("later", VRANGE_KIND_ARENA));
}

int main(void) {
    make_directory();
    IN_CHILD(test_places_of_segments());
    IN_CHILD(test_a_place_of_another_user());
    IN_CHILD(test_numbers_that_no_list_has());
    IN_CHILD(test_names_of_segments());
    IN_CHILD(test_many_accounts());
    IN_CHILD(test_counts_without_accounts());
    IN_CHILD(test_counts_without_memory());
    remove_directory();
    return 0;
}
