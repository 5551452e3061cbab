/* Every system call and every allocation of the core fails once, alone or with later ones of the same
 * function, in each of three ways and on each rung (tests/faults/inject.c). The test_failing_*.c have the
 * operations, by room.
 *
 * A function of the interface may succeed or be refused. It may not return wrong content, crash, hang, or
 * leave anything behind that does not work afterwards. Each trial is a process of its own.
 *
 * The default is a small sample, each time another one. With FAILURES=n it has n of each operation on each
 * rung. An operation's name as argument chooses it, and FAILURE="n way" the nth call and the way in which it
 * fails. */
#ifndef FAILING_CALLS_H
#define FAILING_CALLS_H

#define THE_PROGRAM_IS_OURS
#include "../faults/inject.c"

#include <stdlib.h>
#include <time.h>

#include "index_support.h"

#define HANGS_SECONDS 20
#define FAILING_WAYS 6u
#define SAMPLE 1 /* of an operation, on one rung */
#define PAGE vrange_page_bytes()
#define BYTES (8 * PAGE)

/* ---- how a call may end ------------------------------------------------------------------------ */

/* 0 is success; negative is an errno. */
static inline bool did(int result) {
    CHECK(result >= -4095);
    return result >= 0;
}

static inline bool allocated(vrange_arena *arena, size_t bytes, uint64_t seed, uint64_t *handle) {
    if (!did(vrange_allocate(arena, bytes, handle))) return false;
    write_words(vrange_address(*handle), bytes, seed);
    return true;
}

static inline void check_content(uint64_t handle, size_t bytes, uint64_t seed) {
    CHECK(wrong_words(vrange_address(handle), bytes, seed) == 0);
}

/* Pins a volatile range and looks whether it has its content, if the library says so. */
static inline void pin_and_check(uint64_t handle, size_t bytes, uint64_t seed) {
    const int result = vrange_pin(handle);
    CHECK(result <= VRANGE_PURGED);
    if (result == VRANGE_OK) check_content(handle, bytes, seed);
    if (result < 0) return;
    if (result == VRANGE_PURGED) {
        write_words(vrange_address(handle), bytes, seed);
        CHECK(vrange_refilled(handle) == 0);
    }
    CHECK(vrange_release(handle) == VRANGE_OK);
}

static inline int regenerate(void *to, size_t offset, size_t bytes, void *context) {
    (void)context;
    for (size_t i = 0; i < bytes / 8; i++) ((uint64_t *)to)[i] = word_at(7, offset / 8 + i);
    return 0;
}

static inline void rest(unsigned milliseconds) {
    const struct timespec time = {0, milliseconds * 1000000l};
    nanosleep(&time, NULL);
}

/* A child checks what it reads. It may also refuse to go on, and say so (process/fork.c). */
static inline void wait_for(pid_t child) {
    int status = 0, got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) continue;
    if (child > 0 && got == child)
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
              (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
}

/* ---- the world before: made while nothing fails ------------------------------------------------ */

#define RANGES 6

static vrange_account *account;
static vrange_arena *arena;
static uint64_t handles[RANGES];
static vrange_array *array;
static vrange_shared *shared_index;
static int rung;
static pid_t owner;

/* A process that shares the index and keeps a large value. */
static inline void begin_owner(void) {
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    owner = begin_child();
    if (owner == 0) {
        static uint64_t words[32768];
        const vrange_part part = {words, sizeof words};
        vrange_account *own_account;
        vrange_arena *own = open_arena(4 * MIB, &own_account);
        vrange_shared_key k = {.replaces = 1};
        vrange_shared_found found;
        uint64_t handle;
        CHECK(vrange_shared_join(shared_index) == 0);
        write_words(words, sizeof words, 99);
        k.stamp = vrange_shared_stamp(shared_index);
        digest_of(99, k.digest);
        CHECK(vrange_store(own, &part, 1, 0, 0, &handle) == VRANGE_OK &&
              vrange_set_owner(handle, 1) == VRANGE_OK);
        CHECK(vrange_release(handle) == VRANGE_OK);
        const int result = vrange_shared_put_range(shared_index, &k, handle, sizeof words, "note", 4, &found);
        CHECK(result == 0 || rung < VRANGE_RUNG_REFAULT);
        CHECK(write(ready[1], "1", 1) == 1);
        for (;;) pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
}

static inline void make_world(bool with_peer) {
    rung = vrange_rung();
    arena = open_arena(16 * MIB, &account);
    for (uint64_t i = 0; i < RANGES; i++) {
        CHECK(allocated(arena, BYTES, i, &handles[i]));
        CHECK(vrange_set_owner(handles[i], (uint32_t)i + 1) == VRANGE_OK);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
    if (rung == VRANGE_RUNG_REFAULT) {
        vrange_account *of_array = vrange_account_open("array", VRANGE_KIND_ARRAY);
        CHECK(of_array && vrange_array_open(16 * PAGE, 4 * PAGE, regenerate, NULL, of_array, &array) == 0);
    }
    if (!with_peer) return;
    shared_index = open_index("index");
    vrange_shared_found found;
    for (uint64_t key = 0; key < 4; key++) CHECK(set(shared_index, key, 1, &found) == 0);
    begin_owner();
}

/* Everything works now that nothing fails. */
static inline void check_world(void) {
    vrange_account *later = vrange_account_open("later", VRANGE_KIND_ARENA);
    vrange_arena *another;
    uint64_t handle;
    CHECK(later && vrange_arena_open(4 * MIB, later, &another) == 0);
    CHECK(vrange_allocate(another, BYTES, &handle) == 0);
    write_words(vrange_address(handle), BYTES, 50);
    CHECK(vrange_release(handle) == VRANGE_OK);
    pin_and_check(handle, BYTES, 50);
    CHECK(vrange_discard(handle) == VRANGE_OK);
    CHECK(vrange_pin(handle) == VRANGE_PURGED);
    CHECK(vrange_free(handle) == VRANGE_OK);
    vrange_arena_close(another);
    vrange_account_close(later);
    for (uint64_t i = 0; arena && i < RANGES; i++)
        if (vrange_state(handles[i]) != VRANGE_STATE_FREED) pin_and_check(handles[i], BYTES, i);
    /* The rung fell where a sandbox began to refuse what it needs. The array reports that for ever. */
    if (array && vrange_rung() == VRANGE_RUNG_REFAULT) {
        size_t failed_at;
        CHECK(vrange_array_pin(array, 0, 4, NULL, &failed_at) == 0);
        CHECK(wrong_words(vrange_array_address(array), 16 * PAGE, 7) == 0);
        vrange_array_unpin(array, 0, 4);
    }
}

/* ---- trials ------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    void (*run)(void);
    bool is_first; /* nothing was made before */
    bool has_peer, is_touch;
    bool (*prepare)(void); /* before anything fails; false: this machine can't do it */
} operation;

static inline long attempt(const operation *which, long nth, unsigned way) {
    alarm(HANGS_SECONDS);
    if (which->prepare && !which->prepare()) return 0;
    if (!which->is_first) make_world(which->has_peer);
    inject_find();
    inject_arm(nth, way % 2, way / 2);
    which->run();
    const long calls = inject_disarm();
    int error;
    const char *const name = inject_failed(&error);
    if (name) fprintf(stderr, "%s failed: %s\n", name, strerror(error));
    check_world();
    if (owner) end_child(owner);
    return calls;
}

/* A touch can't be refused in words. Where what knows the userfaultfd is refused for good, arrays can't be read any more
 * (arrays_bar); where mprotect is, no further step of a deep stack can be opened. */
static inline bool may_end(const operation *which, unsigned way, int status) {
    if (!which->is_touch || !WIFSIGNALED(status)) return false;
    return WTERMSIG(status) == SIGBUS || (way % 2 && WTERMSIG(status) == SIGSEGV);
}

static unsigned wrong;

/* What trials write is shown only if they go wrong: they report that the rung fell, for example. */
static char said[160];

static inline void begin_saying(void) {
    const int file = open(said, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    CHECK(file >= 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
    close(file);
}

static inline void show_said(void) {
    char text[2048];
    const int file = open(said, O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? 0 : read(file, text, sizeof text);
    if (length > 0) fwrite(text, 1, (size_t)length, stderr);
    if (file >= 0) close(file);
}

static inline long in_child(const operation *which, const char *on, long nth, unsigned way) {
    int ends[2], status;
    long calls = 0;
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        test_process = getpid();
        setenv("VRANGE_RUNG", on, 1);
        begin_saying();
        calls = attempt(which, nth, way);
        CHECK(write(ends[1], &calls, sizeof calls) == sizeof calls);
        _exit(0);
    }
    close(ends[1]);
    const bool is_done = read(ends[0], &calls, sizeof calls) == sizeof calls;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    if ((!is_done || status) && !may_end(which, way, status)) {
        show_said();
        fprintf(stderr, "%s on %s, call %ld, way %u: status %#x\n", which->name, on, nth, way,
                (unsigned)status);
        wrong++;
    }
    return calls;
}

/* The main function of a test. */
static inline int try_operations(const operation *all, size_t operations, int count, char **arguments) {
    static const char *const rungs[] = {"refault", "sentinel", "eager"};
    const char *const asked = getenv("FAILURES");
    const long sample = asked ? atol(asked) : SAMPLE;
    uint64_t random = (uint64_t)time(NULL) << 16 | (uint64_t)getpid();
    long tried = 0;
    make_directory();
    const char *const place = getenv("FAILURE"); /* this one alone: its number, and in which way */
    snprintf(said, sizeof said, "%s/said", directory);
    for (size_t i = 0; i < operations; i++) {
        const operation *const which = &all[i];
        if (count == 2 && strcmp(arguments[1], which->name) != 0) continue;
        const size_t chosen = (size_t)((random >> 40) + i) % 3;
        for (size_t on = 0; on < 3; on++) {
            if (!asked && !place && on != chosen) continue;
            if (place) {
                char *way;
                const long nth = strtol(place, &way, 10);
                in_child(which, rungs[on], nth, (unsigned)strtoul(way, NULL, 10));
                continue;
            }
            const long calls = in_child(which, rungs[on], 1l << 40, 0);
            for (long trial = 0; calls > 0 && trial < sample; trial++, tried++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                in_child(which, rungs[on], (long)((random >> 33) % (uint64_t)calls) + 1,
                         (unsigned)(random >> 13) % FAILING_WAYS);
            }
        }
    }
    remove_directory();
    if (wrong || asked) fprintf(stderr, "%u of %ld trials went wrong\n", wrong, tried);
    return wrong > 0;
}

#endif
