/* How threads end in a program that knows nothing of vrange; test_endings.py runs it with vrange's malloc. Each
 * part is chosen by its name. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_block.h"

static void *volatile hidden; /* from the compiler, which would leave out a block that nobody uses */

static void use(size_t bytes) {
    volatile char *block = malloc(bytes);
    CHECK(block);
    for (size_t i = 0; i < bytes; i += 4 * KIB) block[i] = 1;
    free((void *)block);
}

static void say_goodbye(void) { puts("goodbye"); }

static void *work(void *unused) {
    for (int i = 0; i < 20; i++) {
        use(3 * MIB);
        usleep(1000);
    }
    puts("worked");
    return unused;
}

/* The process ends with its last thread, which is another one. */
static void end_main(int workers) {
    atexit(say_goodbye);
    use(MIB);
    for (int i = 0; i < workers; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    }
    pthread_exit(NULL);
}

static void *fork_and_end(void *unused) {
    (void)unused;
    const pid_t child = fork();
    if (child == 0) end_main(1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return NULL;
}

/* The one thread of a fork's child is its main thread. */
static void end_in_child(void) {
    pthread_t thread;
    use(MIB);
    fflush(NULL);
    CHECK(pthread_create(&thread, NULL, fork_and_end, NULL) == 0 && pthread_join(thread, NULL) == 0);
    puts("waited");
}

static atomic_int reached;

/* None of malloc's functions is a cancellation point. */
static void *be_cancelled(void *unused) {
    (void)unused;
    CHECK(pthread_cancel(pthread_self()) == 0);
    void *blocks[40];
    for (size_t i = 0; i < 40; i++) CHECK(blocks[i] = malloc((i + 1) * 70 * KIB));
    reached = 1;
    for (size_t i = 0; i < 40; i++) CHECK(blocks[i] = realloc(blocks[i], (i + 1) * 900 * KIB));
    reached = 2;
    for (size_t i = 0; i < 40; i++) free(blocks[i]);
    hidden = malloc(SIZE_MAX / 4); /* which the heap can't serve */
    CHECK(!hidden);
    struct rlimit limit = {(rlim_t)8 << 30, (rlim_t)8 << 30}; /* below it, each growth reads how much is left */
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    for (int i = 0; i < 3; i++) use(100 * MIB);
    reached = 3;
    pthread_testcancel();
    reached = 4;
    return NULL;
}

static void cancel(void) {
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, be_cancelled, NULL) == 0 && pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED && reached == 3);
    fflush(NULL);
    const pid_t child = fork(); /* waits for each thread that is in the middle of a change */
    if (child == 0) _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* The child of vfork is the first to free a large block, and ends. */
static void free_in_vfork(void) {
    const pid_t child = vfork();
    if (child == 0) {
        hidden = malloc(2 * MIB);
        free(hidden);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    use(3 * MIB); /* so little that the freeing thread does not offer it itself */
    for (int tries = 0; memory_kib("LazyFree:") < 2 * 1024; tries++) {
        CHECK(tries < 400);
        usleep(5000);
    }
}

int main(int count, char **words) {
    const char *part = count > 1 ? words[1] : "";
    if (strcmp(part, "alone") == 0) end_main(0);
    else if (strcmp(part, "workers") == 0) end_main(2);
    else if (strcmp(part, "child") == 0) end_in_child();
    else if (strcmp(part, "cancelled") == 0) cancel();
    else if (strcmp(part, "vfork") == 0) free_in_vfork();
    else return 2;
    return 0;
}
