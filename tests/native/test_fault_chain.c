/* Our handler stays the first one while another thread changes the handlers: a signal that is not ours goes
 * where it would have gone without us. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault_chain.h"
#include "check.h"
#include "os/os_thread.h"

static atomic_int seen[3];

static void first(int number) {
    (void)number;
    seen[0]++;
}

static void second(int number) {
    (void)number;
    seen[1]++;
}

/* As faulthandler does: restores what was there before, and raises the signal again. */
static struct sigaction before_restoring;

static void restoring(int number) {
    seen[2]++;
    sigaction(number, &before_restoring, NULL);
    raise(number);
}

static struct sigaction install(void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, before;
    CHECK(sigaction(SIGBUS, &action, &before) == 0);
    return before;
}

/* What another thread does between our look at the handlers and our change of them. */
static void (*meanwhile)(void);

int __real_os_signal_action(int number, const struct sigaction *action, struct sigaction *previous);
int __wrap_os_signal_action(int number, const struct sigaction *action, struct sigaction *previous);

int __wrap_os_signal_action(int number, const struct sigaction *action, struct sigaction *previous) {
    if (action && meanwhile) {
        void (*once)(void) = meanwhile;
        meanwhile = NULL;
        once();
    }
    return __real_os_signal_action(number, action, previous);
}

/* The same, between finding the handler that gets a signal and calling it. */
static void (*before_call)(void);

void __real_os_block_signals(const sigset_t *more);
void __wrap_os_block_signals(const sigset_t *more);

void __wrap_os_block_signals(const sigset_t *more) {
    if (before_call) {
        void (*once)(void) = before_call;
        before_call = NULL;
        once();
    }
    __real_os_block_signals(more);
}

static void install_second(void) { install(second, 0); }
static void restore(void) { sigaction(SIGBUS, &before_restoring, NULL); }

#define EXPECT(by_first, by_second, by_restoring)                                            \
    do {                                                                                     \
        memset(seen, 0, sizeof seen);                                                        \
        CHECK(raise(SIGBUS) == 0);                                                           \
        CHECK(seen[0] == (by_first) && seen[1] == (by_second) && seen[2] == (by_restoring)); \
    } while (0)

static void a_handler_that_comes_meanwhile_is_the_next(void) {
    install(first, 0);
    meanwhile = install_second;
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    CHECK(fault_chain_is_first(SIGBUS));
    EXPECT(0, 1, 0);
}

static void a_handler_that_leaves_meanwhile_is_not_called(void) {
    install(first, 0);
    before_restoring = install(restoring, SA_NODEFER);
    meanwhile = restore;
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    EXPECT(1, 0, 0);
}

static void ours_that_comes_back_meanwhile_is_not_below_itself(void) {
    install(first, 0);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    before_restoring = install(restoring, SA_NODEFER);
    meanwhile = restore;
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    CHECK(fault_chain_is_first(SIGBUS));
    EXPECT(1, 0, 0);
}

static struct sigaction ours_below_leaving;

static void leaving(int number) {
    (void)number;
    seen[0]++;
}

static void coming(int number) {
    (void)number;
    seen[1]++;
}

/* The one that was found leaves, and the next one is kept in its place. */
static void put_coming_in_its_place(void) {
    CHECK(sigaction(SIGBUS, &ours_below_leaving, NULL) == 0);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    install(coming, 0);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
}

static void a_signal_goes_to_the_handler_that_was_found_for_it(void) {
    ours_below_leaving = install(leaving, 0);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    before_call = put_coming_in_its_place;
    EXPECT(1, 0, 0);
    EXPECT(0, 1, 0);
    CHECK(sigaction(SIGBUS, &ours_below_leaving, NULL) == 0);
}

/* Handlers that call the one before them, as it was when they came. */
static struct sigaction before_chaining, before_covering;

static void call_again(const struct sigaction *handler, int number, siginfo_t *info, void *context) {
    if (handler->sa_flags & SA_SIGINFO) handler->sa_sigaction(number, info, context);
    else handler->sa_handler(number);
}

static void chaining(int number, siginfo_t *info, void *context) {
    seen[1]++;
    call_again(&before_chaining, number, info, context);
}

static void covering(int number, siginfo_t *info, void *context) {
    seen[2]++;
    call_again(&before_covering, number, info, context);
}

static struct sigaction install_chaining(void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}, before;
    CHECK(sigaction(SIGBUS, &action, &before) == 0);
    return before;
}

/* Two handlers come between two looks of ours, so that only the second one is known; then it leaves, and the
 * first one is in place. What it calls is below it, and not the one that left. */
static void a_handler_that_was_covered_before_it_was_seen_calls_what_is_below_it(void) {
    install(first, 0);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    before_chaining = install_chaining(chaining);
    before_covering = install_chaining(covering);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    EXPECT(1, 1, 1);
    CHECK(sigaction(SIGBUS, &before_covering, NULL) == 0); /* it leaves */
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    EXPECT(1, 1, 0);
    CHECK(sigaction(SIGBUS, &before_chaining, NULL) == 0);
    CHECK(fault_chain_be_first(SIGBUS) == 0);
    EXPECT(1, 0, 0);
}

static atomic_bool is_over;

static void *stay_first(void *unused) {
    (void)unused;
    while (!is_over) CHECK(fault_chain_be_first(SIGBUS) == 0);
    return NULL;
}

/* Each signal goes to the handler that came last, and then to the one before it, whatever moment the other
 * thread puts ours first in. */
#define SIGNALS_SENT 30000

static void signals_go_on_while_another_thread_stays_first(void) {
    pthread_t thread;
    int misdirected = 0;
    install(first, 0);
    CHECK(pthread_create(&thread, NULL, stay_first, NULL) == 0);
    for (int i = 0; i < SIGNALS_SENT; i++) {
        before_restoring = install(restoring, SA_NODEFER);
        memset(seen, 0, sizeof seen);
        CHECK(raise(SIGBUS) == 0);
        misdirected += seen[0] != 1 || seen[2] != 1;
    }
    is_over = true;
    pthread_join(thread, NULL);
    if (misdirected) printf("fault_chain: %d of %d signals misdirected\n", misdirected, SIGNALS_SENT);
#ifndef __SANITIZE_THREAD__ /* which looks a handler up in a table of its own, that is not changed at the same moment */
    CHECK(misdirected == 0);
#endif
}

int main(void) {
    alarm(60);
    a_handler_that_comes_meanwhile_is_the_next();
    a_handler_that_leaves_meanwhile_is_not_called();
    ours_that_comes_back_meanwhile_is_not_below_itself();
    a_signal_goes_to_the_handler_that_was_found_for_it();
    a_handler_that_was_covered_before_it_was_seen_calls_what_is_below_it();
    signals_go_on_while_another_thread_stays_first();
    return 0;
}
