/* What a touch behind the end of a file ends, and what it doesn't: each tried in a child. */
#ifndef VRANGE_TEST_CUT_ENDS_H
#define VRANGE_TEST_CUT_ENDS_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define FOREIGN_BYTES (256 * MIB) /* fits in no hole between others */
#define CAME_THROUGH 9            /* the status of a child whose function returned */

/* Maps a file that is none of ours, and cuts it. */
static char *map_foreign(void) {
    char name[] = "/dev/shm/vrange-test-foreign-XXXXXX";
    const int file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, FOREIGN_BYTES) == 0);
    char *const foreign = mmap(NULL, FOREIGN_BYTES, PROT_READ, MAP_SHARED, file, 0);
    CHECK(foreign != MAP_FAILED && ftruncate(file, 0) == 0);
    return foreign;
}

static void touch(const char *address) { (void)*(const volatile char *)address; }

static int status_of(void (*function)(void), void (*handler)(int)) {
    fflush(NULL);
    const pid_t child = fork();
    int status;
    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGBUS, handler);
        function();
        _exit(CAME_THROUGH);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void end_by_handler(int number) { _exit(number); }

static void ends_by_sigbus(void (*function)(void)) {
    int status = status_of(function, SIG_DFL);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = status_of(function, end_by_handler); /* one of the program's, which was there before */
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == SIGBUS);
}

#endif
