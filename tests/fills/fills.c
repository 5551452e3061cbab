/* Native fills as a user would write them, good and bad ones. The tests load them through cffi and
 * ctypes. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* cffi: begin */
/* 64-bit words that count from *context on. */
int count_from(void *to, size_t offset, size_t bytes, void *context);
/* What the array at *context has there. */
int copy_array(void *to, size_t offset, size_t bytes, void *context);
/* Fails with the number in *context, where it is not 0; then zeros. */
int fail_with(void *to, size_t offset, size_t bytes, void *context);
/* Takes its time, and counts itself in *context while it does. */
typedef struct {
    int inside, most, calls;
} crowd;
int slow_ones(void *to, size_t offset, size_t bytes, void *context);

/* A SIGBUS handler of a library, which notes what comes and, for a touch, jumps away. */
int install_jumper(void);
int touch_guarded(const void *address); /* 1 where the touch failed */
/* A handler that calls who was there before it. */
int install_chain(void);
/* A handler with SA_SIGINFO that says so in a word, and ends the process with status 7. */
int install_ender(void);
extern volatile int bus_errors;

/* Sets errno to 42, touches, and tells whether it is another number then. */
int touch_keeping_errno(const void *address);
/* cffi: end */

int count_from(void *to, size_t offset, size_t bytes, void *context) {
    uint64_t start = *(uint64_t *)context + offset / 8, *words = to;
    for (size_t i = 0; i < (bytes + 7) / 8; i++) {
        uint64_t word = start + i;
        size_t left = bytes - i * 8;
        memcpy(words + i, &word, left < 8 ? left : 8);
    }
    return 0;
}

int copy_array(void *to, size_t offset, size_t bytes, void *context) {
    memcpy(to, *(char **)context + offset, bytes);
    return 0;
}

int fail_with(void *to, size_t offset, size_t bytes, void *context) {
    (void)offset;
    memset(to, 0, bytes);
    return *(int *)context;
}

int slow_ones(void *to, size_t offset, size_t bytes, void *context) {
    (void)offset;
    crowd *c = context;
    int inside = __atomic_add_fetch(&c->inside, 1, __ATOMIC_SEQ_CST);
    if (inside > c->most) c->most = inside;
    usleep(2000);
    memset(to, 1, bytes);
    __atomic_add_fetch(&c->calls, 1, __ATOMIC_SEQ_CST);
    __atomic_sub_fetch(&c->inside, 1, __ATOMIC_SEQ_CST);
    return 0;
}

volatile int bus_errors;
static sigjmp_buf away;
static struct sigaction before_chain;

static void jump(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    bus_errors++;
    if (info->si_code > 0) siglongjmp(away, 1);
}

static void chain(int number, siginfo_t *info, void *context) {
    bus_errors++;
    if (before_chain.sa_flags & SA_SIGINFO) before_chain.sa_sigaction(number, info, context);
    else if (before_chain.sa_handler == SIG_DFL) {
        sigaction(number, &before_chain, NULL);
        raise(number);
    } else before_chain.sa_handler(number);
}

static void end(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    static const char sent[] = "the ender was sent it\n", met[] = "the ender met it\n";
    if (info->si_code > 0 ? write(2, met, sizeof met - 1) : write(2, sent, sizeof sent - 1)) _exit(7);
}

static int install(void (*handler)(int, siginfo_t *, void *), struct sigaction *before) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    return sigaction(SIGBUS, &action, before);
}

int install_jumper(void) { return install(jump, NULL); }
int install_chain(void) { return install(chain, &before_chain); }
int install_ender(void) { return install(end, NULL); }

int touch_guarded(const void *address) {
    if (sigsetjmp(away, 1)) return 1;
    (void)*(const volatile char *)address;
    return 0;
}

int touch_keeping_errno(const void *address) {
    int before = errno;
    errno = 42;
    (void)*(const volatile char *)address;
    int changed = errno != 42;
    errno = before;
    return changed;
}
