/* Keeps the counts of branches that gcc's runtime would lose (scripts/coverage).
 *
 * The runtime writes them when a process returns from main. Many children of the tests end by _exit, abort
 * or a fault, or run another program. This file is compiled twice. As a preloaded library it replaces those
 * functions by ones that write the counts first. With LINKED it becomes a part of each instrumented library
 * and program, and registers the runtime that is in there: each has its own. */
#define _GNU_SOURCE
#include <dlfcn.h>

typedef void (*step)(void);

#ifdef LINKED

extern void __gcov_dump(void);
extern void __gcov_reset(void);

__attribute__((constructor)) static void register_here(void) {
    void (*count_exits_of)(step, step) = (void (*)(step, step))dlsym(RTLD_DEFAULT, "count_exits_of");
    if (count_exits_of) count_exits_of(__gcov_dump, __gcov_reset);
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#define RUNTIMES_MOST 8

static struct {
    step dump, reset;
} runtimes[RUNTIMES_MOST];
static _Atomic unsigned used;
static pid_t process;
static _Thread_local bool writing;
static void (*end)(int);
static step stop, disarm;
static int (*set_action)(int, const struct sigaction *, struct sigaction *);
static int (*run)(const char *, char *const *, char *const *);

void count_exits_of(step dump, step reset) {
    const unsigned here = atomic_fetch_add(&used, 1);
    if (here < RUNTIMES_MOST) {
        runtimes[here].reset = reset;
        runtimes[here].dump = dump;
    }
}

static void each_runtime(bool writes) {
    for (unsigned i = 0; i < RUNTIMES_MOST && i < atomic_load(&used); i++) {
        if (!runtimes[i].dump) continue;
        if (writes) runtimes[i].dump();
        runtimes[i].reset();
    }
}

/* The parent writes what it counted before the fork. */
static void begin_child(void) {
    process = getpid();
    each_runtime(false);
}

/* The functions are looked for now: at an exit another thread may hold the linker's lock. */
__attribute__((constructor)) static void begin(void) {
    process = getpid();
    end = (void (*)(int))dlsym(RTLD_NEXT, "_exit");
    stop = (step)dlsym(RTLD_NEXT, "abort");
    run = (int (*)(const char *, char *const *, char *const *))dlsym(RTLD_NEXT, "execve");
    set_action = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT, "sigaction");
    disarm = (step)dlsym(RTLD_DEFAULT, "inject_disarm");
    pthread_atfork(NULL, NULL, begin_child);
}

static void write_counts(void) {
    if (writing) return;
    writing = true;
    if (disarm) disarm(); /* else writing would fail as well */
    each_runtime(true);
    writing = false;
}

/* A child of vfork that could not run a program has its parent's memory: the counts are written and begin
 * anew. */
void _exit(int status) {
    write_counts();
    end(status);
    __builtin_unreachable();
}

void _Exit(int status) { _exit(status); }

void abort(void) {
    write_counts();
    stop();
    __builtin_unreachable();
}

/* So the handlers of faults end a process: what they did would be lost. */
int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    const bool is_fault = number == SIGSEGV || number == SIGBUS;
    if (is_fault && action && action->sa_handler == SIG_DFL) write_counts();
    return set_action(number, action, before);
}

/* The parent of a vfork goes on, and writes by itself. */
int execve(const char *path, char *const *arguments, char *const *environment) {
    if (getpid() == process) write_counts();
    return run(path, arguments, environment);
}

int execv(const char *path, char *const *arguments) { return execve(path, arguments, environ); }

#endif
