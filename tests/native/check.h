/* What the native tests share: a check that tells where it failed, and content that tells its page. */
#ifndef CHECK_H
#define CHECK_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vrange.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* The process of the test. A check that fails in one of its children ends it at once: it may be waiting for what
 * the child does not do any more. */
static pid_t test_process;

__attribute__((constructor)) static void note_test_process(void) { test_process = getpid(); }

static inline _Noreturn void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    if (getpid() != test_process) kill(test_process, SIGTERM);
    exit(1);
}

#define CHECK(condition)                                                \
    do {                                                                \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition); \
    } while (0)

#define MIB ((size_t)1 << 20)

static inline void check_child_passed(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* In a process of its own, which knows nothing of what was checked before. */
static inline void check_in_child(void (*check)(void)) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        check();
        exit(0);
    }
    check_child_passed(child);
}

/* In a child each, because a process chooses its rung once. */
static inline void check_rungs(const char *const *rungs, size_t count, int (*check_rung)(const char *rung)) {
    for (size_t i = 0; i < count; i++) {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) exit(check_rung(rungs[i]));
        check_child_passed(child);
    }
}

static inline vrange_arena *open_arena(size_t bytes, vrange_account **account) {
    vrange_arena *arena;
    *account = vrange_account_open("test", VRANGE_KIND_ARENA);
    CHECK(*account);
    CHECK(vrange_arena_open(bytes, *account, &arena) == 0);
    return arena;
}

static inline uint64_t word_at(uint64_t seed, size_t i) {
    return (seed * 0x9e3779b97f4a7c15ull + i) | 1; /* never zero, as lost pages are */
}

static inline void write_words(uint64_t *words, size_t bytes, uint64_t seed) {
    for (size_t i = 0; i < bytes / sizeof *words; i++) words[i] = word_at(seed, i);
}

static inline size_t wrong_words(const uint64_t *words, size_t bytes, uint64_t seed) {
    size_t wrong = 0;
    for (size_t i = 0; i < bytes / sizeof *words; i++) wrong += words[i] != word_at(seed, i);
    return wrong;
}

#endif
