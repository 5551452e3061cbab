/* What the tests of fork share. */
#ifndef FORK_SUPPORT_H
#define FORK_SUPPORT_H

#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define PAGE vrange_page_bytes()
#define BYTES (8 * PAGE)

static inline bool is_zero(const uint64_t *words, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof *words; i++) {
        if (words[i]) return false;
    }
    return true;
}

static inline void ends_well(pid_t child) {
    int status;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) fprintf(stderr, "ended by signal %d\n", WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* In a child of fork; it ends well where nothing was found wrong. */
#define IN_CHILD(...)          \
    do {                       \
        fflush(NULL);          \
        pid_t child_ = fork(); \
        if (child_ == 0) {     \
            __VA_ARGS__;       \
            _exit(0);          \
        }                      \
        ends_well(child_);     \
    } while (0)

static inline uint64_t filled(vrange_arena *arena, size_t bytes, uint64_t seed) {
    uint64_t handle;
    CHECK(vrange_allocate(arena, bytes, &handle) == 0);
    write_words(vrange_address(handle), bytes, seed);
    return handle;
}

static inline bool has(uint64_t handle, size_t bytes, uint64_t seed) {
    return wrong_words(vrange_address(handle), bytes, seed) == 0;
}

#endif
