/* What the tests of refusals share. What callers may get wrong is refused, and changes nothing: handles of nothing,
 * numbers that no list has, sizes that can't be, records of no member. The test_refusals_*.c have them by room. */
#ifndef REFUSALS_H
#define REFUSALS_H

#include "index_support.h"

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

static inline void write_text(const char *name, const char *text) {
    char where[256];
    CHECK(snprintf(where, sizeof where, "%s/%s", directory, name) < (int)sizeof where);
    const int file = open(where, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && close(file) == 0);
}

#endif
