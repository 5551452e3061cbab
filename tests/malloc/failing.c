/* A program that uses malloc while system calls of vrange fail. scripts/test-malloc-faults and test_failing.py run
 * it, with the injector of tests/faults and vrange's malloc preloaded.
 *
 *   failing SCENARIO [SEED]
 *
 * Counts the calls of the scenario, and lets each of them fail in six ways, or one that SEED chooses, in one way.
 * Each trial is a child of its own. Every allocation has to return a block as large, as aligned and as empty as was asked
 * for, or NULL with ENOMEM; no block may lose its content; and afterwards all has to work. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_block.h"
#define HANGS_SECONDS 60
#define LIVE 12
#define WAYS 6 /* alone, or with later calls of the same function; with one of three errors */

static void (*arm)(long nth, bool stays, unsigned choice);
static long (*disarm)(void);
static const char *(*failed)(int *error);
static uint64_t (*trim)(void);
static void (*return_idle)(int returns);

/* ---- blocks whose content shows whose they are --------------------------------------------------- */

typedef struct {
    unsigned char *at;
    size_t bytes;
    unsigned seed;
} block;

static _Atomic unsigned seeds;

static void fill(block *b) {
    b->seed = ++seeds;
    for (size_t i = 0; i < b->bytes; i += 509) b->at[i] = (unsigned char)(b->seed + i / 509);
}

static void check_part(const block *b, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 509) CHECK(b->at[i] == (unsigned char)(b->seed + i / 509));
}

/* Takes over what an allocation returned. */
static block own(void *at, size_t bytes, size_t alignment, bool zeroed) {
    block b = {at, bytes, 0};
    if (!at) {
        CHECK(errno == ENOMEM);
        return (block){NULL, 0, 0};
    }
    CHECK((uintptr_t)at % alignment == 0 && malloc_usable_size(at) >= bytes);
    for (size_t i = 0; zeroed && i < bytes; i++) CHECK(b.at[i] == 0);
    fill(&b);
    return b;
}

static block allocate(size_t bytes) {
    errno = 0;
    return own(malloc(bytes), bytes, 16, false);
}

static block allocate_zeroed(size_t bytes) {
    errno = 0;
    return own(calloc(1, bytes), bytes, 16, true);
}

static block allocate_aligned(size_t alignment, size_t bytes) {
    void *at = NULL;
    const int error = posix_memalign(&at, alignment, bytes);
    CHECK(error == 0 || error == ENOMEM);
    errno = error;
    return own(error ? NULL : at, bytes, alignment, false);
}

/* On failure the block is as it was. */
static void resize(block *b, size_t bytes) {
    const block before = *b;
    errno = 0;
    unsigned char *at = realloc(b->at, bytes);
    if (!at) {
        CHECK(errno == ENOMEM);
        check_part(&before, before.bytes);
        return;
    }
    *b = (block){at, bytes, before.seed};
    check_part(b, before.bytes < bytes ? before.bytes : bytes);
    fill(b);
}

static void release(block *b) {
    if (b->at) check_part(b, b->bytes);
    free(b->at);
    *b = (block){NULL, 0, 0};
}

/* ---- scenarios ----------------------------------------------------------------------------------- */

static block live[LIVE];

static void check_live(void) {
    for (int i = 0; i < LIVE; i++)
        if (live[i].at) check_part(&live[i], live[i].bytes);
}

static void release_all(void) {
    for (int i = 0; i < LIVE; i++) release(&live[i]);
}

static void rest(unsigned milliseconds) {
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000l};
    nanosleep(&time, NULL);
}

static void allocations(void) {
    static const size_t sizes[] = {64 * KIB, 100 * KIB, MIB, 9 * MIB, 40 * MIB, 3 * MIB + 5};
    for (int i = 0; i < LIVE; i++) {
        const size_t bytes = sizes[i % 6];
        live[i] = i % 3 == 0 ? allocate(bytes) : i % 3 == 1 ? allocate_zeroed(bytes)
                                                            : allocate_aligned(4096, bytes);
    }
    for (int i = 0; i < LIVE; i += 2) release(&live[i]);
    for (int i = 0; i < LIVE; i += 2) live[i] = allocate_zeroed(sizes[i % 6]);
}

static void resizes(void) {
    static const size_t sizes[] = {100, 70 * KIB, MIB, 5 * MIB, 33 * MIB, 2 * MIB, 80 * KIB, 1000};
    for (int i = 0; i < 4; i++) live[i] = allocate(sizes[2 * i]);
    for (int round = 0; round < 8; round++)
        for (int i = 0; i < 4; i++)
            if (live[i].at) resize(&live[i], sizes[(round + 3 * i) % 8]);
}

/* Trims, and what the thread of vrange does with freed blocks. */
static void trims(void) {
    for (int i = 0; i < LIVE; i++) live[i] = allocate(MIB * (size_t)(i % 4 + 1));
    for (int i = 0; i < LIVE; i += 2) release(&live[i]);
    rest(150);
    trim();
    for (int i = 0; i < LIVE; i += 2) live[i] = allocate_zeroed(MIB);
    return_idle(1);
    for (int i = 1; i < LIVE; i += 2) release(&live[i]);
    trim();
    return_idle(0);
}

static void forks(void) {
    allocations();
    const pid_t child = fork();
    if (child < 0) return;
    if (child == 0) {
        check_live();
        release(&live[1]);
        live[1] = allocate_zeroed(7 * MIB);
        if (live[0].at) resize(&live[0], 300 * KIB);
        check_live();
        release_all();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void limits(void) {
    allocations();
    const struct rlimit most = {1 << 30, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &most) == 0);
    release(&live[2]);
    live[2] = allocate(50 * MIB);
    block refused = allocate((size_t)2 << 30);
    CHECK(!refused.at);
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    release(&live[3]);
    live[3] = allocate_zeroed(20 * MIB);
}

static void *work(void *unused) {
    block mine[4] = {{NULL, 0, 0}};
    for (int round = 0; round < 40; round++) {
        block *b = &mine[round % 4];
        release(b);
        *b = round % 2 ? allocate(MIB / 2 * (size_t)(round % 7 + 1)) : allocate_zeroed(90 * KIB);
        if (b->at && round % 5 == 0) resize(b, 2 * MIB);
    }
    for (int i = 0; i < 4; i++) release(&mine[i]);
    return unused;
}

static void threads(void) {
    pthread_t other[3];
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&other[i], NULL, work, NULL) == 0);
    work(NULL);
    trim();
    for (int i = 0; i < 3; i++) CHECK(pthread_join(other[i], NULL) == 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {{"allocations", allocations}, {"resizes", resizes}, {"trims", trims}, {"forks", forks}, {"limits", limits}, {"threads", threads}};

/* ---- trials -------------------------------------------------------------------------------------- */

static long attempt(void (*run)(void), long nth, bool stays, unsigned choice) {
    alarm(HANGS_SECONDS);
    arm(nth, stays, choice);
    run();
    const long calls = disarm();
    check_live();
    release_all();
    /* Nothing is left of it. */
    allocations();
    resizes();
    trim();
    check_live();
    release_all();
    return calls;
}

static long in_child(void (*run)(void), long nth, bool stays, unsigned choice) {
    int ends[2], status, error = 0;
    long calls = 0;
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        calls = attempt(run, nth, stays, choice);
        CHECK(write(ends[1], &calls, sizeof calls) == sizeof calls);
        const char *which = failed(&error);
        if (which && getenv("FAILING_TELLS")) fprintf(stderr, "%ld: %s: %s\n", nth, which, strerror(error));
        _exit(0);
    }
    close(ends[1]);
    const bool told = read(ends[0], &calls, sizeof calls) == sizeof calls;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    if (!told || status) {
        fprintf(stderr, "call %ld, %s, error %u: status %#x\n", nth, stays ? "and later ones" : "alone", choice,
                (unsigned)status);
        exit(1);
    }
    return calls;
}

int main(int count, char **arguments) {
    CHECK(count == 2 || count == 3);
    const long seed = count == 3 ? atol(arguments[2]) : -1;
    int (*find)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "inject_find");
    arm = (void (*)(long, bool, unsigned))dlsym(RTLD_DEFAULT, "inject_arm");
    disarm = (long (*)(void))dlsym(RTLD_DEFAULT, "inject_disarm");
    failed = (const char *(*)(int *))dlsym(RTLD_DEFAULT, "inject_failed");
    trim = (uint64_t (*)(void))dlsym(RTLD_DEFAULT, "vrange_heap_trim");
    return_idle = (void (*)(int))dlsym(RTLD_DEFAULT, "vrange_heap_return_idle");
    CHECK(find && arm && disarm && failed && trim && return_idle);
    CHECK(find() == 1);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (strcmp(scenarios[i].name, arguments[1]) != 0) continue;
        const long calls = in_child(scenarios[i].run, 1l << 40, false, 0);
        CHECK(calls > 0);
        long tried = 0;
        const long first = seed < 0 ? 1 : seed / WAYS % calls + 1, last = seed < 0 ? calls : first;
        for (long nth = first; nth <= last; nth++) {
            for (long way = seed < 0 ? 0 : seed % WAYS; way < WAYS; way += seed < 0 ? 1 : WAYS, tried++)
                in_child(scenarios[i].run, nth, way % 2, (unsigned)(way / 2));
        }
        printf("%s: %ld calls, %ld trials\n", scenarios[i].name, calls, tried);
        return 0;
    }
    fprintf(stderr, "no scenario %s\n", arguments[1]);
    return 2;
}
