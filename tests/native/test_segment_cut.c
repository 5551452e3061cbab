/* Other code cuts the file of this process's counters, where memory is refused, too. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "counters/accounts.h"
#include "counters/segment.h"
#include "counters/segment_cut.h"
#include "counters/stats.h"
#include "cut_ends.h"

static bool refuses_move, refuses_over, refuses_spare;

int __real_os_move_pages(void *to, void *from, size_t bytes);
int __wrap_os_move_pages(void *to, void *from, size_t bytes);
int __wrap_os_move_pages(void *to, void *from, size_t bytes) {
    return refuses_move ? -EINVAL : __real_os_move_pages(to, from, bytes);
}

int __real_os_map_over(void *address, size_t bytes);
int __wrap_os_map_over(void *address, size_t bytes);
int __wrap_os_map_over(void *address, size_t bytes) {
    return refuses_over ? -ENOMEM : __real_os_map_over(address, bytes);
}

void *__real_os_map(size_t bytes);
void *__wrap_os_map(size_t bytes);
void *__wrap_os_map(size_t bytes) { return refuses_spare ? NULL : __real_os_map(bytes); }

static char directory[] = "/dev/shm/vrange-test-cut-XXXXXX";

static void cut(void) { CHECK(truncate(vrange_segment_path(), 0) == 0); }

/* What vrange says of the cut is not this test's. */
#define QUIETLY(...)                                                                   \
    do {                                                                               \
        const int kept = dup(STDERR_FILENO);                                           \
        const int none = open("/dev/null", O_WRONLY | O_CLOEXEC);                      \
        CHECK(kept >= 0 && dup2(none, STDERR_FILENO) >= 0);                            \
        __VA_ARGS__;                                                                   \
        CHECK(dup2(kept, STDERR_FILENO) >= 0 && close(kept) == 0 && close(none) == 0); \
    } while (0)

static uint64_t refused_of(vrange_account *account) {
    vrange_account_counters read;
    vrange_account_read(account, &read);
    return read.refused;
}

/* Returns what this process says on standard error. */
static const char *said_of(int file) {
    static char text[4096];
    const ssize_t bytes = pread(file, text, sizeof text - 1, 0);
    CHECK(bytes >= 0);
    text[bytes] = 0;
    return text;
}

static int listen_to_self(void) {
    char name[] = "/dev/shm/vrange-test-said-XXXXXX";
    const int file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
    return file;
}

static void counts_on(void) {
    const int file = listen_to_self();
    vrange_account *const one = vrange_account_open("one", VRANGE_KIND_CACHE);
    vrange_account *const two = vrange_account_open("two", VRANGE_KIND_CACHE);
    vrange_account *const gone = vrange_account_open("gone", VRANGE_KIND_CACHE);
    vrange_account_counters all[8];
    vrange_account_refused(one), vrange_account_refused(one);
    stats_idle(two, 5000);
    vrange_account_close(gone);
    accounts_look();
    CHECK(refused_of(one) == 2 && vrange_segment_path() && !vrange_segment_refusal());
    cut();
    vrange_account_refused(one);
    CHECK(refused_of(one) == 1 && segment_is_cut() && segment_cuts() == 1);
    CHECK(!vrange_segment_path() && strstr(vrange_segment_refusal(), "cut"));
    CHECK(strstr(said_of(file), "vrange: other code cut the file"));
    CHECK(strchr(said_of(file), '\n') == strrchr(said_of(file), '\n')); /* once */
    CHECK(vrange_accounts_read(all, 8) == 2 && !strcmp(all[0].name, "one") && !strcmp(all[1].name, "two"));
    CHECK(all[0].kind == VRANGE_KIND_CACHE && all[0].idle_bytes == 0 && all[1].idle_bytes == 5000);
    vrange_account *const three = vrange_account_open("three", VRANGE_KIND_ARENA);
    CHECK(three != one && three != two && vrange_accounts_read(all, 8) == 3);
    vrange_latency_record(VRANGE_KIND_ARENA, 0, 100);
    segment_cut_note(segment_here); /* there is nothing to note it in */
    exit(0);
}

static void counts_on_without_moving(void) {
    refuses_move = true;
    counts_on();
}

static void cut_before_an_account_is_opened(void) {
    vrange_account *const one = vrange_account_open("one", VRANGE_KIND_CACHE);
    vrange_account *two;
    vrange_account_counters all[4];
    cut();
    QUIETLY(two = vrange_account_open("two", VRANGE_KIND_CACHE));
    CHECK(segment_is_cut() && one != two && vrange_accounts_read(all, 4) == 2);
    CHECK(!strcmp(all[0].name, "one") && !strcmp(all[1].name, "two"));
    exit(0);
}

static void *count_in_a_loop(void *account) {
    for (int i = 0; i < 200000; i++) vrange_account_refused(account);
    return NULL;
}

static void several_threads_meet_it(void) {
    pthread_t threads[4];
    vrange_account *const one = vrange_account_open("one", VRANGE_KIND_CACHE);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, count_in_a_loop, one) == 0);
    QUIETLY(cut(); for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
            vrange_account_refused(one));
    CHECK(segment_is_cut() && refused_of(one) <= 800001);
    exit(0);
}

/* The child reads the inherited counts, and meets the cut there. */
static void a_child_meets_it(void) {
    vrange_account *const one = vrange_account_open("one", VRANGE_KIND_CACHE);
    vrange_account_refused(one);
    cut();
    pid_t child;
    int status;
    QUIETLY(child = fork());
    if (child == 0) {
        CHECK(vrange_segment_path() && !segment_is_cut());
        vrange_account_refused(one);
        CHECK(refused_of(one) == 1);
        QUIETLY(cut(); vrange_account_refused(one));
        CHECK(segment_is_cut() && refused_of(one) == 1);
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    QUIETLY(vrange_account_refused(one));
    exit(0);
}

/* More than have a slot of their own, in a child that has its parent's spare, and in the parent. */
static void many_accounts_are_known_afterwards(void) {
    enum { MANY = 400 };
    static vrange_account *all[MANY];
    static vrange_account_counters read[MANY];
    for (int i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        all[i] = vrange_account_open(name, VRANGE_KIND_CACHE);
        stats_idle(all[i], i);
    }
    vrange_latency_record(VRANGE_KIND_CACHE, 0, 1); /* gets a shard */
    accounts_look();
    const size_t count = vrange_accounts_read(read, MANY);
    pid_t child;
    int status;
    QUIETLY(child = fork());
    QUIETLY(cut(); vrange_account_refused(all[MANY - 1]));
    CHECK(segment_is_cut() && vrange_accounts_read(read, MANY) == count && refused_of(all[MANY - 1]) == 1);
    uint64_t idle = 0;
    for (size_t i = 0; i < count; i++) idle += read[i].idle_bytes;
    CHECK(idle == MANY * (MANY - 1) / 2);
    if (child == 0) exit(0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    exit(0);
}

static void ends_without_memory(void) {
    vrange_account *const one = vrange_account_open("one", VRANGE_KIND_CACHE);
    refuses_move = refuses_over = true;
    cut();
    vrange_account_refused(one);
}

static void ends_without_spare(void) {
    refuses_spare = true;
    vrange_account *const one = vrange_account_open("one", VRANGE_KIND_CACHE);
    CHECK(vrange_segment_path());
    cut();
    vrange_account_refused(one);
}

static void ends_by_another_file_above(void) {
    char *const foreign = map_foreign();
    vrange_account_open("one", VRANGE_KIND_CACHE);
    touch(foreign);
}

static void ends_by_another_file_below(void) {
    vrange_account_open("one", VRANGE_KIND_CACHE);
    touch(map_foreign());
}

static void ends_by_a_signal_that_is_sent(void) {
    vrange_account_open("one", VRANGE_KIND_CACHE);
    raise(SIGBUS);
}

int main(void) {
    CHECK(mkdtemp(directory) && setenv("VRANGE_RUNTIME_DIR", directory, 1) == 0);
    CHECK(status_of(counts_on, SIG_DFL) == 0);
    CHECK(status_of(counts_on_without_moving, SIG_DFL) == 0);
    CHECK(status_of(cut_before_an_account_is_opened, SIG_DFL) == 0);
    CHECK(status_of(several_threads_meet_it, SIG_DFL) == 0);
    CHECK(status_of(a_child_meets_it, SIG_DFL) == 0);
    CHECK(status_of(many_accounts_are_known_afterwards, SIG_DFL) == 0);
    CHECK(rmdir(directory) == 0); /* each removed its file */
    CHECK(mkdir(directory, 0700) == 0);
    ends_by_sigbus(ends_without_memory);
    ends_by_sigbus(ends_without_spare);
    ends_by_sigbus(ends_by_another_file_above);
    ends_by_sigbus(ends_by_another_file_below);
    ends_by_sigbus(ends_by_a_signal_that_is_sent);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", directory);
    CHECK(system(command) == 0);
    return 0;
}
