/* What becomes of a signal that vrange's handler mends nothing of, by the action that the program had before: the process
 * ends, goes on, or the program's handler is called, as without vrange. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/fault_chain.h"
#include "fork_support.h"

static char *closed; /* a page that can't be read */
static volatile int handled;

/* The linker puts this in place of the core's: a sandbox may begin to refuse it. */
static bool refuses_looks;

int __real_os_signal_action(int number, const struct sigaction *action, struct sigaction *previous);
int __wrap_os_signal_action(int number, const struct sigaction *action, struct sigaction *previous);
int __wrap_os_signal_action(int number, const struct sigaction *action, struct sigaction *previous) {
    return refuses_looks && !action ? -EPERM : __real_os_signal_action(number, action, previous);
}

static void touch(int number) {
    (void)number;
    closed[0]++;
}

static void send(int number) { CHECK(kill(getpid(), number) == 0); }

static void returns(int number) { (void)number, handled++; }

static void mends(int number) {
    (void)number, handled++;
    CHECK(mprotect(closed, PAGE, PROT_READ | PROT_WRITE) == 0);
}

static void mends_at_the_third(int number) {
    (void)number;
    if (++handled == 3) CHECK(mprotect(closed, PAGE, PROT_READ | PROT_WRITE) == 0);
}

static void arm(int number, void (*before)(int)) {
    const struct sigaction action = {.sa_handler = before};
    CHECK(sigaction(number, &action, NULL) == 0);
    CHECK(fault_chain_be_first(number) == 0 && fault_chain_is_first(number));
}

/* Returns how the child ends: the number of a signal, or 0. */
static int ends_by(int number, void (*before)(int), void (*cause)(int), int times, bool looks_fail) {
    const struct rlimit no_dump = {0, 0};
    int status;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(setrlimit(RLIMIT_CORE, &no_dump) == 0);
        arm(number, before);
        refuses_looks = looks_fail;
        cause(number);
        _exit(handled == times ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void check_all(bool looks_fail) {
    /* The default ends the process at a fault and at a signal that was sent; that of SIGURG is to be ignored. */
    CHECK(ends_by(SIGSEGV, SIG_DFL, touch, 0, looks_fail) == SIGSEGV);
    CHECK(ends_by(SIGSEGV, SIG_DFL, send, 0, looks_fail) == SIGSEGV);
    CHECK(ends_by(SIGBUS, SIG_DFL, send, 0, looks_fail) == SIGBUS);
    CHECK(ends_by(SIGURG, SIG_DFL, send, 0, looks_fail) == 0);
    /* The kernel lets no fault be ignored. */
    CHECK(ends_by(SIGSEGV, SIG_IGN, touch, 0, looks_fail) == SIGSEGV);
    CHECK(ends_by(SIGSEGV, SIG_IGN, send, 0, looks_fail) == 0);
    CHECK(ends_by(SIGURG, SIG_IGN, send, 0, looks_fail) == 0);
    /* A handler is called as often as without vrange. */
    CHECK(ends_by(SIGSEGV, mends, touch, 1, looks_fail) == 0);
    CHECK(ends_by(SIGSEGV, mends_at_the_third, touch, 3, looks_fail) == 0);
    CHECK(ends_by(SIGSEGV, returns, send, 1, looks_fail) == 0);
    CHECK(ends_by(SIGBUS, returns, send, 1, looks_fail) == 0);
    CHECK(ends_by(SIGURG, returns, send, 1, looks_fail) == 0);
}

int main(void) {
    closed = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(closed != MAP_FAILED);
    check_all(false);
    check_all(true);
    return 0;
}
