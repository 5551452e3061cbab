/* Processes that have ended, and whose number others may have; and who gets complaints. */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/stat.h>

#include "os/os.h"
#include "os/os_main_stack.h"
#include "refusals.h"

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

int main(void) {
    make_directory();
    IN_CHILD(test_processes());
    IN_CHILD(test_numbers_of_processes());
    IN_CHILD(test_who_gets_complaints());
    remove_directory();
    return 0;
}
