/* A program that knows nothing of vrange and uses malloc in every way; test_preload.py runs it. Each part is
 * chosen by its name, and ends the program with a message if something is wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_block.h"

static void fill(unsigned char *block, size_t bytes, unsigned seed) {
    for (size_t i = 0; i < bytes; i += 61) block[i] = (unsigned char)(seed + i / 61);
}

static void check(const unsigned char *block, size_t bytes, unsigned seed) {
    for (size_t i = 0; i < bytes; i += 61) CHECK(block[i] == (unsigned char)(seed + i / 61));
}

static const size_t sizes[] = {0, 1, 1000, 64 * KIB - 1, 64 * KIB, 65 * KIB, MIB, 3 * MIB + 5, 9 * MIB};
#define SIZES (sizeof sizes / sizeof *sizes)

/* Hidden from the compiler, which would drop what it knows the outcome of. */
static void *volatile kept;

static void kinds(void) {
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < SIZES; i++) {
            const size_t bytes = sizes[i];
            errno = 77;
            unsigned char *one = malloc(bytes), *zeros = calloc(bytes ? bytes : 1, 1), *array = calloc(7, bytes);
            CHECK(one && zeros && array && malloc_usable_size(one) >= bytes);
            CHECK((uintptr_t)one % 16 == 0);
            for (size_t at = 0; at < bytes; at++) CHECK(zeros[at] == 0);
            fill(one, bytes, 1);
            fill(zeros, bytes, 2);
            fill(array, 7 * bytes, 3);
            check(one, bytes, 1);
            for (size_t alignment = 16; alignment <= 2 * MIB; alignment *= 8) {
                void *out = NULL;
                CHECK(posix_memalign(&out, alignment, bytes) == 0 && (uintptr_t)out % alignment == 0);
                fill(out, bytes, 4);
                unsigned char *other = memalign(alignment, bytes), *third = aligned_alloc(alignment, bytes);
                CHECK((uintptr_t)other % alignment == 0 && (uintptr_t)third % alignment == 0);
                fill(other, bytes, 5);
                check(out, bytes, 4);
                free(other);
                free(third);
                free(out);
            }
            unsigned char *page = valloc(bytes), *pages = pvalloc(bytes);
            CHECK((uintptr_t)page % 4096 == 0 && (uintptr_t)pages % 4096 == 0);
            fill(page, bytes, 6);
            check(zeros, bytes, 2);
            check(array, 7 * bytes, 3);
            errno = 77;
            free(one), free(zeros), free(array), free(page), free(pages);
            CHECK(errno == 77);
        }
    }
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0);
}

static void resizes(void) {
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t j = 0; j < SIZES; j++) {
            const size_t before = sizes[i], bytes = sizes[j], common = before < bytes ? before : bytes;
            unsigned char *block = malloc(before), *neighbour = malloc(before);
            CHECK(block && neighbour);
            fill(block, before, 9);
            errno = 77;
            block = realloc(block, bytes);
            CHECK(errno == 77);
            CHECK(block || !bytes);
            if (block) check(block, common, 9), fill(block, bytes, 10);
            free(block);
            block = reallocarray(neighbour, bytes, 1);
            free(block);
        }
    }
    /* Step by step, as a list grows: from glibc's to the heap's, in place, and moved */
    unsigned char *growing = NULL, *between = NULL;
    for (size_t bytes = 100; bytes < 60 * MIB; bytes += bytes / 8) {
        growing = realloc(growing, bytes);
        CHECK(growing);
        check(growing, bytes / 9 * 8 > 100 ? bytes / 9 * 8 - 61 : 0, 11);
        fill(growing, bytes, 11);
        free(between);
        between = malloc(bytes);
        fill(between, bytes, 12);
    }
    for (size_t bytes = 60 * MIB; bytes > 100; bytes -= bytes / 3) {
        growing = realloc(growing, bytes);
        CHECK(growing);
        check(growing, bytes < 50 * MIB ? bytes : 50 * MIB, 11);
    }
    free(growing), free(between);
}

static void refusals(void) {
    void *out = &out, *block = malloc(MIB);
    fill(block, MIB, 13);
    errno = 0;
    kept = malloc(PTRDIFF_MAX);
    CHECK(!kept && errno == ENOMEM);
    errno = 0;
    kept = malloc(SIZE_MAX - 100);
    CHECK(!kept && errno == ENOMEM);
    errno = 0;
    kept = calloc(SIZE_MAX / 2, 3);
    CHECK(!kept && errno == ENOMEM);
    errno = 0;
    kept = realloc(block, SIZE_MAX / 4);
    CHECK(!kept && errno == ENOMEM);
    errno = 0;
    kept = reallocarray(block, SIZE_MAX / 2, 4);
    CHECK(!kept && errno == ENOMEM);
    check(block, MIB, 13);
    free(block);
    CHECK(posix_memalign(&out, 3, MIB) == EINVAL && posix_memalign(&out, 4, MIB) == EINVAL && out == &out);
    CHECK(posix_memalign(&out, 16, SIZE_MAX / 2) == ENOMEM && out == &out);
    /* With little address space a request fails, and what was there before is as it was. */
    for (size_t limit = 64 * MIB; limit <= 1024 * MIB; limit *= 4) {
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) {
            struct rlimit most = {limit, limit};
            CHECK(setrlimit(RLIMIT_AS, &most) == 0);
            unsigned char *blocks[2048];
            int count = 0;
            errno = 0;
            while (count < 2048 && (blocks[count] = malloc(MIB))) fill(blocks[count], MIB, (unsigned)count), count++;
            CHECK(count == 2048 || errno == ENOMEM);
            for (int i = 0; i < count; i++) check(blocks[i], MIB, (unsigned)i), free(blocks[i]);
            free(malloc(MIB));
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

/* ---- threads, forks, signals -------------------------------------------------------------------- */

#define SHARED 64
static unsigned char *_Atomic shared[SHARED];
static atomic_bool over;
static pthread_key_t at_end;

static void exchange(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    const size_t bytes = *state % 3 ? 60 * KIB + (*state >> 20) % (200 * KIB) : 16 + (*state >> 20) % 3000;
    unsigned char *block = *state & 64 ? malloc(bytes) : calloc(1, bytes);
    CHECK(block);
    memcpy(block, &bytes, sizeof bytes);
    block[bytes - 1] = 7;
    block = atomic_exchange(&shared[*state % SHARED], block);
    if (!block) return;
    size_t held;
    memcpy(&held, block, sizeof held);
    CHECK(block[held - 1] == 7);
    if (*state & 1024) {
        block = realloc(block, held + 5000);
        CHECK(block && block[held - 1] == 7);
    }
    free(block);
}

static void free_at_end(void *block) {
    uint64_t state = (uintptr_t)block;
    free(block);
    for (int i = 0; i < 20; i++) exchange(&state);
}

static void *work(void *seed) {
    uint64_t state = 88172645463325252ull + (uintptr_t)seed * 7919;
    pthread_setspecific(at_end, malloc(100 * KIB));
    for (int i = 0; !atomic_load(&over) && i < 3000; i++) exchange(&state);
    return NULL;
}

/* Each thread forks, and each child works with what it inherited and forks again. */
static void *fork_too(void *seed) {
    uint64_t state = 362436069ull + (uintptr_t)seed;
    for (int i = 0; i < 8; i++) {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            for (int j = 0; j < 200; j++) exchange(&state);
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, work, seed) == 0);
            const pid_t grandchild = fork();
            if (grandchild == 0) {
                for (int j = 0; j < 50; j++) exchange(&state);
                _exit(0);
            }
            int status;
            CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0);
            CHECK(pthread_join(thread, NULL) == 0);
            _exit(0);
        }
        for (int j = 0; j < 50; j++) exchange(&state);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return NULL;
}

/* The child of vfork runs in the memory of its parent, and no handler of a fork runs. */
static void *vfork_too(void *seed) {
    uint64_t state = 521288629ull + (uintptr_t)seed;
    for (int i = 0; i < 60; i++) {
        void *block = malloc(200 * KIB);
        const pid_t child = vfork();
        CHECK(child >= 0);
        if (child == 0) {
            free(block);
            free(malloc(3 * MIB));
            _exit(5);
        }
        for (int j = 0; j < 20; j++) exchange(&state);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5);
    }
    return NULL;
}

static void threads(void *(*one)(void *), void *(*other)(void *)) {
    pthread_t all[6];
    CHECK(pthread_key_create(&at_end, free_at_end) == 0);
    for (uintptr_t i = 0; i < 6; i++) CHECK(pthread_create(&all[i], NULL, i % 2 ? one : other, (void *)(i + 1)) == 0);
    for (int i = 0; i < 6; i++) CHECK(pthread_join(all[i], NULL) == 0);
}

static void take_in_signal(int number) {
    (void)number;
    const int error = errno;
    void *block = malloc(300 * KIB);
    memset(block, 1, 100);
    free(block);
    errno = error;
}

static void signals(void) {
    const struct itimerval often = {{0, 200}, {0, 200}};
    CHECK(signal(SIGALRM, take_in_signal) != SIG_ERR && setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; i < 30000; i++) {
        unsigned char *block = malloc(100 * KIB + (size_t)(i % 50) * 10 * KIB);
        CHECK(block);
        block[i] = 3;
        free(block);
    }
}

/* ---- what is left -------------------------------------------------------------------------------- */

/* Blocks of a size that glibc keeps, with one in eight alive: all others are the kernel's to take. */
static void freed(void) {
    static unsigned char *blocks[1024];
    for (int i = 0; i < 1024; i++) memset(blocks[i] = malloc(100 * KIB), i, 100 * KIB);
    CHECK(figure("/proc/self/status", "Threads:") == 1);
    for (int i = 0; i < 1024; i++)
        if (i % 8) free(blocks[i]);
    for (int tries = 0; memory_kib("LazyFree:") < 80 * 1024 && tries < 400 && getenv("LD_PRELOAD"); tries++) usleep(25000);
    printf("lazyfree_kib %ld\n", memory_kib("LazyFree:"));
    for (int i = 0; i < 1024; i += 8) CHECK(blocks[i][0] == (unsigned char)i && blocks[i][100 * KIB - 1] == (unsigned char)i);
    for (int i = 0; i < 1024; i++)
        if (i % 8) memset(blocks[i] = malloc(100 * KIB), 1, 100 * KIB);
    printf("rss_kib %ld\n", memory_kib("Rss:"));
}

int main(int count, char **words) {
    const char *part = count > 1 ? words[1] : "";
    if (strcmp(part, "kinds") == 0) kinds();
    else if (strcmp(part, "resizes") == 0) resizes();
    else if (strcmp(part, "refusals") == 0) refusals();
    else if (strcmp(part, "threads") == 0) threads(work, work);
    else if (strcmp(part, "forks") == 0) threads(work, fork_too);
    else if (strcmp(part, "vforks") == 0) threads(work, vfork_too);
    else if (strcmp(part, "signals") == 0) signals();
    else if (strcmp(part, "freed") == 0) freed();
    else return 2;
    puts("done");
    return 0;
}
