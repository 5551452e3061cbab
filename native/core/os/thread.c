/* System calls: threads, their stacks and signals, and time. */
#define _GNU_SOURCE
#include "os/os_thread.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

#define GONE_YIELDS 100
#define GONE_SLEEP_NS 50000u
#define NICE_FIRST (-20)
#define SHORT_TURN_NS 100000u /* the shortest that Linux grants; it gives 3 ms without being asked */

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now); /* can't fail with these clocks and a valid address */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

uint64_t os_now_coarse_ns(void) { return clock_ns(CLOCK_MONOTONIC_COARSE); }

uint64_t os_thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

uint64_t os_thread_waits(void) {
    /* The processor times that getrusage reports too are split by ticks: they jump. */
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : (uint64_t)usage.ru_nvcsw;
}

void os_sleep_ns(uint64_t nanoseconds) {
    struct timespec span = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    /* Not the C library's nanosleep: a thread may be cancelled in it (pthread_cancel), and malloc waits here. A
     * signal may end the sleep early: every caller checks its condition again. */
    syscall(SYS_nanosleep, &span, NULL);
}

void os_wait(_Atomic uint32_t *word, uint32_t value, uint64_t nanoseconds) {
    const struct timespec span = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    if (syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &span, NULL, 0) < 0 && errno == ENOSYS)
        os_sleep_ns(nanoseconds); /* a sandbox without futexes: then no other thread can wake it */
}

void os_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }

void os_wait_shared(_Atomic uint32_t *word, uint32_t value, uint64_t nanoseconds) {
    const struct timespec span = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    if (syscall(SYS_futex, word, FUTEX_WAIT, value, &span, NULL, 0) < 0 && errno == ENOSYS)
        os_sleep_ns(nanoseconds);
}

void os_wake_shared(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

void os_yield(void) { sched_yield(); }

unsigned os_processor(void) {
    const int processor = sched_getcpu(); /* a word of memory that the kernel keeps up to date (rseq) */
    return processor < 0 ? 0 : (unsigned)processor;
}

unsigned os_processors(void) {
    const long processors = sysconf(_SC_NPROCESSORS_CONF);
    return processors < 1 ? 1 : (unsigned)processors;
}

/* Not declared by every C library; as in sched_setattr(2), the first version. */
typedef struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} scheduling;

/* Two ways. A higher priority needs a permission. Since Linux 6.12 any thread may ask for shorter turns, and
 * then it preempts threads with longer ones when it wakes. A sandbox's filter may kill a process that asks for
 * either, and there is no way to find out. So a process with a filter does not ask. */
void os_thread_go_first(void) {
    if (prctl(PR_GET_SECCOMP) != 0 || sched_getscheduler(0) != SCHED_OTHER) return;
    (void)setpriority(PRIO_PROCESS, (id_t)os_thread_id(), NICE_FIRST);
    const int nice = getpriority(PRIO_PROCESS, (id_t)os_thread_id());
    const scheduling own = {.size = sizeof own, .policy = SCHED_OTHER, .nice = nice, .runtime = SHORT_TURN_NS};
    (void)syscall(SYS_sched_setattr, 0, &own, 0);
}

void os_thread_wait_gone(int thread_id) {
    for (unsigned waited = 0; waited < GONE_YIELDS && os_thread_signal(thread_id, 0) == 0; waited++) {
        if (waited < GONE_YIELDS / 2) os_yield();
        else os_sleep_ns(GONE_SLEEP_NS); /* its processor is busy with another thread */
    }
}

bool os_lock_renew(pthread_mutex_t *lock) {
    const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    const bool was_held = pthread_mutex_trylock(lock) != 0;
    /* Otherwise the thread sanitizer takes the fresh one to be held. */
    if (!was_held) pthread_mutex_unlock(lock);
    *lock = fresh;
    return was_held;
}

int os_thread_forbid_cancel(void) {
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

void os_thread_allow_cancel(int before) { pthread_setcancelstate(before, NULL); }

int os_thread_id(void) { return (int)syscall(SYS_gettid); }

bool os_is_main_thread(void) { return os_thread_id() == getpid(); }

int os_thread_stack(char **low, char **top) {
    pthread_attr_t attributes;
    int error = pthread_getattr_np(pthread_self(), &attributes);
    if (error) return -error;
    void *address;
    size_t bytes;
    error = pthread_attr_getstack(&attributes, &address, &bytes);
    pthread_attr_destroy(&attributes);
    if (error) return -error;
    *low = address;
    *top = (char *)address + bytes;
    return 0;
}

bool os_thread_is_blocked(int thread_id) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread_id);
    if (os_read_small(path, text, sizeof text) <= 0) return false;
    /* "1234 (name) S ...": the name may contain anything, even a parenthesis, so the last one counts. */
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' && (name_end[2] == 'S' || name_end[2] == 'D');
}

int os_thread_stack_pointer(int thread_id, char **sp) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread_id);
    const int length = os_read_small(path, text, sizeof text);
    if (length < 0) return length;
    /* "running", or the system call, its arguments, the stack pointer and the instruction */
    char *instruction = strrchr(text, ' ');
    if (!instruction) return length > 0 && text[0] == 'r' ? 0 : -ENODATA;
    *instruction = 0;
    char *pointer = strrchr(text, ' ');
    uintptr_t value;
    if (!pointer || sscanf(pointer, " %" SCNxPTR, &value) != 1) return -ENODATA;
    *sp = (char *)value;
    return 1;
}

static bool has_signal(uint64_t set, int number) { return set >> (number - 1) & 1; }

static bool blocks_signal(int thread_id, int number) {
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", thread_id);
    if (os_read_small(path, text, sizeof text) <= 0) return true;
    const char *line = strstr(text, "\nSigBlk:");
    uint64_t blocked;
    if (!line || sscanf(line, "\nSigBlk: %" SCNx64, &blocked) != 1) return true;
    return has_signal(blocked, number);
}

/* While a thread is in sigwait, the kernel does not report as blocked what it waits for. The set may be
 * gone when it is read, because the thread goes on meanwhile. */
static bool waits_for_signal(int thread_id, int number) {
    char path[64], text[256];
    long call;
    uintptr_t address;
    uint64_t set = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread_id);
    if (os_read_small(path, text, sizeof text) <= 0) return false;
    if (sscanf(text, "%ld %" SCNxPTR, &call, &address) != 2 || call != SYS_rt_sigtimedwait) return false;
    const struct iovec to = {&set, sizeof set}, from = {(void *)address, sizeof set};
    return os_read_parts(os_process_id(), &to, 1, &from, 1) < 0 || has_signal(set, number);
}

bool os_thread_takes_signal(int thread_id, int number) {
    return !blocks_signal(thread_id, number) && !waits_for_signal(thread_id, number);
}

char *os_interrupted_stack_pointer(const void *context, char *otherwise) {
    const ucontext_t *c = context;
#if defined(__x86_64__)
    (void)otherwise;
    return (char *)c->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
    (void)otherwise;
    return (char *)c->uc_mcontext.sp;
#else
    (void)c;
    return otherwise;
#endif
}

int os_thread_signal(int thread_id, int number) {
    return syscall(SYS_tgkill, getpid(), thread_id, number) < 0 ? -errno : 0;
}

void os_block_signals(const sigset_t *more) { pthread_sigmask(SIG_BLOCK, more, NULL); }

void os_block_signal(int number, sigset_t *before) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    pthread_sigmask(SIG_BLOCK, &one, before);
}

void os_unblock_signal(int number) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

void os_unblock_to(const sigset_t *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }

int os_signal_action(int number, const struct sigaction *action, struct sigaction *previous) {
    return sigaction(number, action, previous) < 0 ? -errno : 0;
}

int os_alternate_stack(const stack_t *stack, stack_t *previous) {
    return sigaltstack(stack, previous) < 0 ? -errno : 0;
}

size_t os_alternate_stack_bytes(void) {
    /* What the kernel itself writes there grows with the processor's registers (AVX-512, AMX). The rest is
     * for handlers; faulthandler's handler walks Python frames there. */
    const size_t page = os_page_bytes();
    size_t bytes = getauxval(AT_MINSIGSTKSZ) + 64 * 1024;
    return (bytes + page - 1) / page * page;
}
