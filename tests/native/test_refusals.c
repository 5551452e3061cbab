/* What callers may get wrong is refused, and changes nothing: handles of nothing, numbers that no list has,
 * sizes that can't be, records of no member. And texts of /proc that a kernel does not write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "counters/stats.h"
#include "heap/heap.h"
#include "heap/pymalloc_arenas.h"
#include "index_support.h"
#include "os/os.h"
#include "os/os_main_stack.h"
#include "pressure/memory_limits.h"
#include "ranges/range_place.h"
#include "ranges/range_state.h"
#include "reserve/return_space.h"
#include "service/index_layout.h"
#include "stacks/deep_threads.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"

#define PAGE vrange_page_bytes()
#define TEXT_BYTES 4096

/* In a child of its own: what it sets, or breaks, is gone with it. */
#define IN_CHILD(...)                                                                \
    do {                                                                             \
        fflush(NULL);                                                                \
        const pid_t child_ = fork();                                                 \
        int status_;                                                                 \
        if (child_ == 0) {                                                           \
            __VA_ARGS__;                                                             \
            exit(0);                                                                 \
        }                                                                            \
        CHECK(child_ > 0 && waitpid(child_, &status_, 0) == child_ && status_ == 0); \
    } while (0)

/* ---- ranges ------------------------------------------------------------------------------------ */

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

/* ---- numbers and names ------------------------------------------------------------------------- */

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

static void test_processes(void) {
    uint64_t start, stack;
    CHECK(vrange_process_runs(0, &start, &stack) == 0 && vrange_process_runs(UINT64_MAX, &start, &stack) == 0);
    CHECK(vrange_process_runs((uint64_t)getpid(), &start, &stack) == 1 && start > 0);
    const pid_t child = fork();
    if (child == 0)
        for (;;) pause();
    CHECK(kill(child, SIGSTOP) == 0 && waitpid(child, NULL, WUNTRACED) == child);
    CHECK(vrange_process_runs((uint64_t)child, &start, &stack) == 1);
    CHECK(kill(child, SIGKILL) == 0);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0); /* it stays a zombie */
    CHECK(vrange_process_runs((uint64_t)child, &start, &stack) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(vrange_process_runs((uint64_t)child, &start, &stack) == 0);
    vrange_descriptor none;
    CHECK(vrange_descriptor_note(-1, &none) < 0);
}

/* Of processes that may have ended, and whose numbers others may have. */
static void test_numbers_of_processes(void) {
    uint64_t start, stack;
    const uint32_t own = (uint32_t)getpid(), parent = (uint32_t)getppid();
    CHECK(os_process_start(&start, &stack) == 0 && os_process_state(own, start) == OS_PROCESS_RUNS);
    CHECK(os_process_state(own, start + 1) == OS_PROCESS_GONE); /* another one with this number */
    CHECK(os_process_descends(own, own) && os_process_descends(own, parent) && !os_process_descends(parent, own));
    CHECK(!os_process_descends(own, UINT32_MAX) && !os_process_descends(0, own) && os_process_exists(own));
    const pid_t child = fork();
    if (child == 0) _exit(0);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
    CHECK(!os_process_descends((uint32_t)child, own) && os_process_state((uint32_t)child, 0) == OS_PROCESS_GONE);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(!os_process_descends((uint32_t)child, own) && !os_process_exists((uint32_t)child));
    CHECK(os_number_in("18446744073709551615", &start) == 0 && start == UINT64_MAX);
    CHECK(os_number_in("99999999999999999999999", &start) == 0 && start == UINT64_MAX);
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

/* What a limit of address space leaves is enough, or rooms that keep some return it. */
static void test_space_that_is_returned(void) {
    size_t stale;
    uint64_t used, data;
    CHECK(heap_open("space") == 0);
    char *const block = heap_allocate(MIB, &stale);
    CHECK(block);
    heap_free(block);
    return_space_for(MIB);
    CHECK(os_address_space(&used, &data) == 0);
    static const int limits_of[] = {RLIMIT_AS, RLIMIT_DATA};
    for (int i = 0; i < 2; i++) {
        struct rlimit before, limit;
        CHECK(getrlimit(limits_of[i], &before) == 0);
        limit = before;
        limit.rlim_cur = used + 256 * MIB;
        CHECK(setrlimit(limits_of[i], &limit) == 0);
        return_space_for(MIB);
        return_space_for((size_t)1 << 40);
        CHECK(return_space_if_changed() && !return_space_if_changed());
        CHECK(setrlimit(limits_of[i], &before) == 0);
        CHECK(return_space_if_changed());
    }
    CHECK(os_address_space(&used, &data) == 0);
}

/* ---- standard error ---------------------------------------------------------------------------- */

static void complain_to(int file, bool stays_open) {
    CHECK(file >= 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
    if (!stays_open) CHECK(fcntl(STDERR_FILENO, F_SETFD, FD_CLOEXEC) == 0);
    os_complain("complaint", 9);
}

static off_t bytes_of(const char *where) {
    struct stat found;
    CHECK(stat(where, &found) == 0);
    return found.st_size;
}

/* A program may have got a database under the number of standard error. */
static void test_who_gets_complaints(void) {
    char where[192];
    int ends[2], pair[2];
    snprintf(where, sizeof where, "%s/complaints", directory);
    const int made = O_CREAT | O_TRUNC | O_CLOEXEC;
    IN_CHILD(complain_to(open(where, made | O_RDWR, 0600), true));
    CHECK(bytes_of(where) == 0);
    IN_CHILD(complain_to(open(where, made | O_RDWR | O_APPEND, 0600), true));
    CHECK(bytes_of(where) == 9);
    IN_CHILD(complain_to(open(where, made | O_WRONLY, 0600), true));
    CHECK(bytes_of(where) == 9);
    IN_CHILD(complain_to(open(where, made | O_WRONLY, 0600), false));
    CHECK(bytes_of(where) == 0);
    IN_CHILD(complain_to(open("/dev/null", O_WRONLY | O_CLOEXEC), true));
    IN_CHILD(complain_to(open("/dev/full", O_WRONLY | O_CLOEXEC), true));
    IN_CHILD(CHECK(close(STDERR_FILENO) == 0); os_complain("complaint", 9));
    char text[16];
    CHECK(pipe(ends) == 0);
    IN_CHILD(complain_to(ends[1], true));
    CHECK(read(ends[0], text, sizeof text) == 9);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    IN_CHILD(complain_to(pair[1], true));
    CHECK(read(pair[0], text, sizeof text) < 0);
    IN_CHILD(close(ends[0]); complain_to(ends[1], true)); /* nobody reads: no SIGPIPE */
}

/* ---- what belongs to others -------------------------------------------------------------------- */

static void test_files_of_others(void) {
    vrange_shared *index;
    char place[160];
    make_path("of-others");
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &index) == 0);
    CHECK(chmod(path, 0640) == 0 && vrange_shared_open(path, BUCKETS, BLOCKS, &index) < 0);
    CHECK(chmod(path, 0600) == 0);
    if (geteuid() != 0) return;
    CHECK(chown(path, 12345, 0) == 0 && vrange_shared_open(path, BUCKETS, BLOCKS, &index) < 0);
    snprintf(place, sizeof place, "%s/of-others.d", directory);
    CHECK(mkdir(place, 0700) == 0 && chown(place, 12345, 0) == 0);
    IN_CHILD(places_with(place, NULL, false));
    CHECK(!os_is_directory(path) && os_is_directory(place) && !os_is_directory("/nowhere"));
    CHECK(os_allocate("/nowhere/at/all", 0, 4096) < 0 && os_allocate("/proc/self/stat", 0, 4096) < 0);
    CHECK(os_share_over("/nowhere/at/all", 4096, NULL) < 0);
    CHECK(os_empty_shared(NULL, 4096) < 0);
}

/* ---- ranges that an index can't refer to ------------------------------------------------------- */

static void test_ranges_without_content(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(4 * MIB, &account);
    vrange_shared *index = open_index("ranges");
    vrange_shared_found found;
    uint64_t handle, partial;
    static char note[VRANGE_PAYLOAD_MOST];
    vrange_shared_key key = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(3, key.digest);
    CHECK(vrange_allocate(arena, 4 * PAGE, &handle) == 0 && vrange_allocate(arena, 4 * PAGE, &partial) == 0);
    CHECK(vrange_set_partial(partial, 1) == VRANGE_OK && vrange_release(partial) == VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, partial, 8, "", 0, &found) != VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, handle, 64 * PAGE, "", 0, &found) != VRANGE_OK);
    const int long_note = vrange_shared_put_range(index, &key, handle, 8, note, sizeof note, &found);
    CHECK(long_note == -E2BIG || vrange_rung() == VRANGE_RUNG_SENTINEL);
    CHECK(vrange_release(handle) == VRANGE_OK);
    if (vrange_shared_put_range(index, &key, handle, 8, "note", 4, &found) == VRANGE_OK) {
        uint64_t cursor = 0;
        CHECK(vrange_shared_next(index, &cursor, note, 8, &found) == VRANGE_GONE); /* no room for the place */
    }
    CHECK(vrange_discard(handle) == VRANGE_OK);
    key.stamp = vrange_shared_stamp(index);
    CHECK(vrange_shared_put_range(index, &key, handle, 8, "", 0, &found) != VRANGE_OK);
    CHECK(vrange_free(handle) == VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, handle, 8, "", 0, &found) != VRANGE_OK);
    vrange_shared_leave(index);
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

/* ---- texts of /proc ---------------------------------------------------------------------------- */

static void write_text(const char *name, const char *text) {
    char where[256];
    snprintf(where, sizeof where, "%s/%s", directory, name);
    const int file = open(where, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && close(file) == 0);
}

static int groups_of(const char *cgroup, const char *mounts) {
    static vrange_cgroups found;
    vrange_limit limit;
    write_text("cgroup", cgroup);
    write_text("mountinfo", mounts);
    const int result = vrange_cgroups_read(directory, &found);
    CHECK(result <= 0 && found.count <= VRANGE_CGROUPS);
    vrange_limit_of(&found, &limit);
    CHECK(limit.bytes > 0);
    return (int)found.count;
}

#define MOUNT_V1 "40 30 0:35 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define MOUNT_V2 "42 32 0:39 / /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw\n"

static void test_cgroup_texts(void) {
    static const char *const memberships[] = {"",
                                              "\n\n:::\n",
                                              "9:memory",
                                              "9:memory:/a/b\n0::/a\n",
                                              "0::/../x\n",
                                              "0::/a/../b\n",
                                              "9:cpu,memory:/\n",
                                              "9:memoryx,memory:/..\n",
                                              "0::/\n",
                                              "9:mem:/\n1:name=systemd:/\n",
                                              "x:y\n0\n",
                                              "0::/a..b/..c/d..\n",
                                              "7:memory,cpu:/a\n0:x:/b\n",
                                              "7:memory\n",
                                              "7:,memory,:/sys\n"};
    static const char *const mounts[] = {
        "",
        "\n",
        "1 2\n",
        MOUNT_V1,
        MOUNT_V2,
        MOUNT_V1 MOUNT_V2,
        "40 30 0:35 /a /mnt\\040x rw - cgroup cgroup rw,memory\n",
        "40 30 0:35 /a /mnt\\9 rw - cgroup cgroup rw,cpu\n40 30 0:35 / /m\\04 rw - cgroup2 c rw\n",
        "40 30 0:35 /a\\0404 /mnt\\048\\08 rw - cgroup cgroup rw,memory,x\n40 30 0:35 /a.. /mnt\\ rw - cgroup2 "
        "c rw\n",
        "40 30 0:35 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,xmemory,memoryx\n40 30 0:35 /aa /m rw - "
        "cgroup2 c rw\n",
        "40 30 0:35 /.. /mnt rw - cgroup cgroup rw,memory\n",
        "40 30 0:35 / /mnt rw - cgroup\n40 30 0:35 / /mnt rw - cgroup cgroup\n40 30 0:35 / /mnt rw -\n40 30 "
        "0:35 /\n",
        "42 32 0:39 / /nowhere rw - cgroup2 c rw\n" MOUNT_V2 "42 32 0:39 /a /sys/fs/cgroup rw - cgroup2 c rw\n",
    };
    for (size_t i = 0; i < sizeof memberships / sizeof *memberships; i++)
        for (size_t j = 0; j < sizeof mounts / sizeof *mounts; j++) groups_of(memberships[i], mounts[j]);
    static char long_text[3 * VRANGE_PATH_BYTES];
    memset(long_text, 'p', sizeof long_text - 1);
    memcpy(long_text, "0::/", 4);
    groups_of(long_text, MOUNT_V2);
    static vrange_cgroups found;
    CHECK(vrange_cgroups_read("/nowhere", &found) < 0);
    CHECK(vrange_cgroups_read(long_text + 4, &found) < 0);
}

/* Texts that are longer than others, and more cgroups around each other than are looked at. */
static void test_long_cgroup_texts(void) {
    enum { DEEP = 40,
           TEXT = 3 << 20 };
    static char text[TEXT], place[TEXT_BYTES];
    char root[200];
    size_t length = 0;
    while (length < 40000) length += (size_t)sprintf(text + length, "1 2 0:3 / /somewhere/%zu rw - tmpfs none rw\n", length);
    strcpy(text + length, MOUNT_V1);
    CHECK(groups_of("9:memory:/\n", text) >= 0);
    memset(text, 'x', sizeof text - 1);
    groups_of("9:memory:/\n", text); /* longer than any kernel writes */
    snprintf(root, sizeof root, "%s/groups", directory);
    length = (size_t)snprintf(place, sizeof place, "%s", root);
    for (int i = 0; i <= DEEP; i++) {
        if (i) length += (size_t)snprintf(place + length, sizeof place - length, "/g");
        CHECK(mkdir(place, 0700) == 0);
        snprintf(text, sizeof text, "%s/memory.usage_in_bytes", place + strlen(directory) + 1);
        write_text(text, "4096\n");
    }
    snprintf(text, sizeof text, "9:memory:%s\n", place + strlen(root));
    char mounts[TEXT_BYTES];
    snprintf(mounts, sizeof mounts, "40 30 0:35 / %s rw - cgroup cgroup rw,memory\n40 30 0:35 /g %s/g rw - cgroup cgroup rw,memory\n", root, root);
    CHECK(groups_of(text, mounts) == VRANGE_CGROUPS);
    while (length >= strlen(root)) {
        snprintf(text, sizeof text, "%s/memory.usage_in_bytes", place);
        CHECK(unlink(text) == 0 && rmdir(place) == 0);
        length -= 2;
        place[length] = 0;
    }
}

/* A process may have no descriptor left when it looks for its limits. It looks again later. */
static void test_limits_without_descriptors(void) {
    static limits l;
    static vrange_cgroups found;
    struct rlimit none, before;
    const uint64_t later_ns = 2000000000;
    const int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(probe >= 0 && close(probe) == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = (rlim_t)probe;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    limits_find(&l, "/proc/self", &found);
    CHECK(!l.is_complete);
    CHECK(!limits_have_moved(&l, os_now_ns()) && limits_have_moved(&l, os_now_ns() + later_ns));
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    if (limits_find(&l, "/proc/self", &found) == 0) CHECK(!limits_have_moved(&l, os_now_ns() + later_ns));
    limits_forget(&l);
}

/* ---- the interpreter's arenas ------------------------------------------------------------------ */

static void test_arenas_of_interpreters(void) {
    size_t count, others;
    CHECK(!pymalloc_is_arena_of(1, PYMALLOC_ARENA_BYTES));
    pymalloc_forget(PYMALLOC_ARENA_BYTES);
    for (uintptr_t i = 1; i <= 3000; i++) pymalloc_note(i * i * PYMALLOC_ARENA_BYTES, (int64_t)(i % 3));
    pymalloc_note(4 * PYMALLOC_ARENA_BYTES, 2); /* again */
    for (uintptr_t i = 1; i <= 3000; i++)
        CHECK(pymalloc_is_arena_of((int64_t)(i % 3), i * i * PYMALLOC_ARENA_BYTES));
    CHECK(!pymalloc_is_arena_of(2, PYMALLOC_ARENA_BYTES) && !pymalloc_is_arena_of(2, 3 * PYMALLOC_ARENA_BYTES));
    for (uintptr_t i = 1; i <= 3000; i += 2) pymalloc_forget(i * i * PYMALLOC_ARENA_BYTES);
    for (uintptr_t i = 1; i <= 3000; i++)
        CHECK(pymalloc_is_arena_of((int64_t)(i % 3), i * i * PYMALLOC_ARENA_BYTES) == (i % 2 == 0));
    uintptr_t *arenas = pymalloc_arenas_of(0, &count, &others);
    CHECK(arenas && count == 500 && others == 1000);
    free(arenas);
}

/* ---- compressed arrays ------------------------------------------------------------------------- */

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

/* ---- a shared index ---------------------------------------------------------------------------- */

static void test_an_index_refuses(void) {
    vrange_shared *index, *guest;
    vrange_shared_found found, again;
    vrange_shared_flight flight, other;
    unsigned char digest[VRANGE_DIGEST_BYTES];
    static char payload[VRANGE_PAYLOAD_MOST + 8];
    uint64_t cursor = 0;
    make_path("refused");
    static const uint32_t sizes[][2] = {{0, 64}, {3, 64}, {64, 0}, {1u << 31, 64}, {64, UINT32_MAX}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(vrange_shared_open(path, sizes[i][0], sizes[i][1], &index) < 0);
    index = open_index("refused");
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &guest) == 0); /* no member */
    digest_of(1, digest);
    vrange_shared_key key = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(1, key.digest);
    CHECK(vrange_shared_put(guest, &key, payload, 8, &found) < 0 &&
          vrange_shared_lead(guest, digest, &flight) == -ESRCH);
    CHECK(vrange_shared_find(guest, digest, payload, sizeof payload, &found) < 0);
    vrange_shared_leave(guest);
    CHECK(vrange_shared_put(index, &key, payload, sizeof payload, &found) == -E2BIG);
    CHECK(vrange_shared_put_range(index, &key, 0, 8, "", 0, &found) != VRANGE_OK);
    CHECK(vrange_shared_put(index, &key, payload, 100, &found) == 0 && vrange_shared_count(index) == 1);
    CHECK(vrange_shared_find(index, digest, payload, 10, &again) == VRANGE_GONE); /* no room */
    CHECK(vrange_shared_read(index, &found, NULL, 0, payload) == VRANGE_PURGED); /* no range */
    CHECK(vrange_shared_drop(index, found.at, found.word + 1) == VRANGE_GONE);
    CHECK(vrange_shared_drop(index, UINT64_MAX, found.word) == VRANGE_GONE &&
          vrange_shared_drop(index, 0, 0) == VRANGE_GONE);
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_OK);
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_GONE);
    CHECK(vrange_shared_put_error(index, &key, 0, payload, 20, &again) == 0);
    CHECK(vrange_shared_count(index) == 0);
    cursor = 0;
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_GONE);
    key.expires_ns = 1; /* long ago */
    key.stamp = vrange_shared_stamp(index);
    CHECK(vrange_shared_put(index, &key, payload, 100, &found) == 0 && vrange_shared_count(index) == 0);
    CHECK(vrange_shared_find(index, digest, payload, sizeof payload, &again) == VRANGE_GONE);
    cursor = 0;
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_GONE);
    vrange_shared_drop(index, found.at, found.word);
    CHECK(vrange_shared_drop(index, found.at, found.word) == VRANGE_GONE);

    CHECK(vrange_shared_lead(index, digest, &flight) == VRANGE_OK && flight.leads);
    CHECK(vrange_shared_lead(index, digest, &other) == VRANGE_HELD && !other.leads);
    CHECK(vrange_shared_wait(index, &other, 1000) == VRANGE_HELD &&
          vrange_shared_wait(index, &other, 0) == VRANGE_HELD);
    vrange_shared_waits_for(index, &flight, (int64_t)flight.number);
    CHECK(vrange_shared_leads_to(index, flight.number, &flight, 1) == 1);
    CHECK(vrange_shared_leads_to(index, UINT32_MAX, &flight, 1) == 0);
    vrange_shared_flight wrong = flight;
    wrong.word++;
    CHECK(vrange_shared_leads_to(index, flight.number, &wrong, 1) ==
          1); /* a circle without it: nobody waits for that */
    vrange_shared_waits_for(index, &flight, -1);
    vrange_shared_waits_for(index, &wrong, 1);
    vrange_shared_land(index, &wrong);
    wrong.number = UINT32_MAX;
    vrange_shared_land(index, &wrong);
    vrange_shared_waits_for(index, &wrong, 1);
    CHECK(vrange_shared_wait(index, &wrong, 1000) == VRANGE_OK);
    vrange_shared_land(index, &flight);
    CHECK(vrange_shared_wait(index, &other, 1000) == VRANGE_OK);
    CHECK(vrange_shared_leads_to(index, flight.number, &flight, 1) == 0);
    CHECK(vrange_shared_is_at(index, path) == 1 && vrange_shared_is_at(index, "/nowhere") == 0);
    CHECK(vrange_shared_is_at(index, "/dev/null") == 0);
    vrange_shared_leave(index);
    vrange_shared_leave(index);
    CHECK(vrange_shared_identity(index) == 0);
    static const char *const texts[] = {"", "short",
                                        "no index, but long enough for what is read of one: no index at all, "
                                        "no index at all, no index at all, no index at all, no index at all"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("none", texts[i]);
        make_path("none");
        CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &index) < 0);
    }
}

/* Each field of a header that other code has written over. */
static void test_headers_of_an_index(void) {
    vrange_shared *index = open_index("header");
    index_header right, wrong;
    const int file = open(path, O_RDWR | O_CLOEXEC);
    CHECK(file >= 0 && pread(file, &right, sizeof right, 0) == sizeof right);
    for (int field = 0; field < 9; field++) {
        vrange_shared *other;
        wrong = right;
        switch (field) {
        case 0: wrong.magic[0] ^= 1; break;
        case 1: wrong.version++; break;
        case 2: wrong.page_bytes *= 2; break;
        case 3: wrong.buckets = 0; break;
        case 4: wrong.buckets = 3; break;
        case 5: wrong.buckets = 1u << 31; break;
        case 6: wrong.blocks = 0; break;
        case 7: wrong.blocks = UINT32_MAX; break;
        default: wrong.bytes++;
        }
        CHECK(pwrite(file, &wrong, sizeof wrong, 0) == sizeof wrong);
        CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &other) < 0);
    }
    wrong = right;
    wrong.blocks--; /* as large as it says, and does not fit the rest */
    vrange_shared *other;
    CHECK(pwrite(file, &wrong, sizeof wrong, 0) == sizeof wrong && vrange_shared_open(path, BUCKETS, BLOCKS, &other) < 0);
    CHECK(pwrite(file, &right, sizeof right, 0) == sizeof right && close(file) == 0);
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &other) == 0);
    vrange_shared_leave(other);
    vrange_shared_leave(index);
}

/* ---- stacks and threads ------------------------------------------------------------------------ */

static void *in_thread(void *unused) {
    stack *s;
    CHECK(vrange_thread_register() == 0 && vrange_thread_register() == 0);
    CHECK(deep_threads_begin((size_t)1 << 40, &s) < 0);
    vrange_stack_trim(VRANGE_RELEASE_VOLATILE);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    return unused;
}

static void *in_deep_thread(void *unused) {
    stack *s;
    CHECK(deep_threads_begin(MIB, &s) == 0 && deep_threads_begin(MIB, &s) == -EEXIST);
    CHECK(vrange_thread_register() == 0);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    return unused;
}

static void run_thread(void *(*function)(void *), size_t stack_bytes) {
    pthread_t thread;
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, stack_bytes) == 0);
    CHECK(pthread_create(&thread, &attributes, function, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

static void test_stacks_and_threads(void) {
    stack *s;
    CHECK(sigsegv_arm_thread() == 0);
    CHECK(stack_take(SIZE_MAX / 2, false, &s) == -ENOMEM);
    CHECK(vrange_thread_register() == -EPERM);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    run_thread(in_thread, 4 * MIB);
    run_thread(in_deep_thread, 64 * MIB);
    IN_CHILD(pthread_attr_t usual; size_t bytes; CHECK(os_default_thread_stack(48 * MIB) == 0);
             CHECK(pthread_getattr_default_np(&usual) == 0 && pthread_attr_getstacksize(&usual, &bytes) == 0);
             CHECK(bytes == 48 * MIB); CHECK(os_default_thread_stack(1) == -EINVAL));
    IN_CHILD(CHECK(deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s) <= 0);
             deep_threads_begin_main(MIB, VRANGE_STACK_USUAL_BYTES, &s));
    IN_CHILD(const struct rlimit deep = {(rlim_t)2 << 30, RLIM_INFINITY};
             CHECK(setrlimit(RLIMIT_STACK, &deep) == 0);
             deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s);
             CHECK(deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s) < 0));
    IN_CHILD(const struct rlimit small = {(rlim_t)1 << 20, RLIM_INFINITY};
             CHECK(setrlimit(RLIMIT_STACK, &small) == 0);
             CHECK(deep_threads_begin_main((size_t)1 << 30, VRANGE_STACK_USUAL_BYTES, &s) < 0));
}

/* ---- the heap and the watcher ------------------------------------------------------------------ */

static void ends_by_abort(void (*function)(void *), void *argument) {
    fflush(NULL);
    const pid_t child = fork();
    int status;
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        function(argument);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
          WTERMSIG(status) == SIGABRT);
}

static void free_block(void *block) { heap_free(block); }
static void measure_block(void *block) { heap_block_bytes(block); }
static void resize_block(void *block) { heap_resize(block, 2 * MIB); }

static void test_blocks_that_are_none(void) {
    size_t stale;
    vrange_heap_info info;
    vrange_heap_read(&info);
    CHECK(info.blocks == 0 && vrange_heap_unused() == 0 && vrange_heap_trim() == 0);
    CHECK(heap_open("refusals") == 0 && heap_open("refusals") == 0);
    CHECK(!heap_allocate(1, &stale) && !heap_allocate(SIZE_MAX / 2, &stale));
    char *block = heap_allocate(MIB, &stale);
    CHECK(block && heap_has(block));
    void (*const functions[])(void *) = {free_block, measure_block, resize_block};
    for (int i = 0; i < 3; i++) {
        ends_by_abort(functions[i], block + 4096);
        ends_by_abort(functions[i], block + 1);
    }
    CHECK(!heap_resize(block, SIZE_MAX / 2));
    heap_free(block);
    ends_by_abort(free_block, block); /* twice */
}

static void test_one_watcher(void) {
    static vrange_cgroups found;
    const vrange_pressure_settings settings = {2000000, 1000000, .7, .9, .05, .2};
    vrange_pressure_info info;
    vrange_pressure_stop();
    if (vrange_pressure_find("/proc/self", &found) < 0 || vrange_pressure_start(&settings) < 0) return;
    CHECK(vrange_pressure_start(&settings) == -EBUSY);
    vrange_pressure_read(&info);
    CHECK(info.running && info.level != VRANGE_PRESSURE_NONE);
    CHECK(vrange_pressure_wait(info.turn + 1, UINT64_MAX) != info.turn + 1);
    IN_CHILD(vrange_pressure_read(&info); CHECK(!info.running));
    vrange_pressure_stop();
}

int main(void) {
    make_directory();
    IN_CHILD(test_compressed_blocks());
    IN_CHILD(test_places_of_segments());
    IN_CHILD(test_blocks_that_are_none());
    IN_CHILD(test_handles_of_nothing());
    IN_CHILD(test_sizes_that_can_not_be());
    IN_CHILD(test_numbers_that_no_list_has());
    IN_CHILD(test_names_of_segments());
    IN_CHILD(test_many_accounts());
    IN_CHILD(test_processes());
    IN_CHILD(test_numbers_of_processes());
    IN_CHILD(test_counts_without_accounts());
    IN_CHILD(test_counts_without_memory());
    IN_CHILD(test_space_that_is_returned());
    IN_CHILD(test_long_cgroup_texts());
    IN_CHILD(test_headers_of_an_index());
    IN_CHILD(test_who_gets_complaints());
    IN_CHILD(test_files_of_others());
    IN_CHILD(test_ranges_without_content());
    IN_CHILD(test_words_of_what_was_there());
    IN_CHILD(test_cgroup_texts());
    IN_CHILD(test_limits_without_descriptors());
    IN_CHILD(test_arenas_of_interpreters());
    IN_CHILD(test_an_index_refuses());
    IN_CHILD(test_stacks_and_threads());
    IN_CHILD(test_one_watcher());
    remove_directory();
    return 0;
}
