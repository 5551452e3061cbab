/* The userfaultfd is closed again and again, as by a daemon that closes all it has, while threads pin,
 * store, grow an arena, and pin and touch an array, and the kernel takes what is offered. What a pin tells
 * to be there is there, and nobody dies. Slow system calls stretch the moments in between. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "os/os.h"
#include "os/os_kept_descriptors.h"

#define RANGES 64
#define PAGES 8
#define BYTES (PAGES * vrange_page_bytes())
#define ARRAY_BYTES (256 * vrange_page_bytes())
#define BLOCK_BYTES (4 * vrange_page_bytes())
#define SECONDS 4

int __real_os_userfault_open(os_held *held);
int __wrap_os_userfault_open(os_held *held) {
    usleep(3000);
    int result = __real_os_userfault_open(held);
    usleep(1000);
    return result;
}

int __real_os_populate(void *address, size_t bytes);
int __wrap_os_populate(void *address, size_t bytes) {
    static _Atomic unsigned calls;
    int result = __real_os_populate(address, bytes);
    /* Between the pin and the look whether it would have been told. */
    if (bytes > vrange_page_bytes() && atomic_fetch_add(&calls, 1) % 8 == 0) usleep(2000);
    return result;
}

static uint64_t handles[RANGES];
static pthread_mutex_t locks[RANGES];
static uint64_t seeds[RANGES];
static vrange_array *array;
static _Atomic bool stop;
static _Atomic uint64_t closes, pins, losses, wrong, array_pins, array_wrong;

static int close_userfaults(void) {
    int closed = 0;
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    char link[256], path[300];
    while ((entry = readdir(directory))) {
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t n = readlink(path, link, sizeof link - 1);
        if (n < 0) continue;
        link[n] = 0;
        if (strstr(link, "userfaultfd")) closed += close(atoi(entry->d_name)) == 0;
    }
    closedir(directory);
    return closed;
}

static void *closer(void *unused) {
    (void)unused;
    while (!atomic_load(&stop)) {
        closes += (uint64_t)close_userfaults();
        usleep(7000);
    }
    return NULL;
}

static void *taker(void *unused) {
    (void)unused;
    for (size_t i = 0; !atomic_load(&stop); i++) {
        char *address = vrange_address(handles[i % RANGES]);
        const size_t page = i / RANGES % PAGES * vrange_page_bytes();
        madvise(address + page, vrange_page_bytes(), MADV_PAGEOUT);
        if (i % RANGES == 0) {
            madvise(vrange_array_address(array), ARRAY_BYTES, MADV_PAGEOUT);
            usleep(200);
        }
    }
    return NULL;
}

static void *pinner(void *number) {
    uint64_t random = (uint64_t)(uintptr_t)number * 7919 + 12345;
    while (!atomic_load(&stop)) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t i = random % RANGES;
        if (pthread_mutex_trylock(&locks[i])) continue;
        int result = vrange_pin(handles[i]);
        CHECK(result == VRANGE_OK || result == VRANGE_PURGED);
        uint64_t *words = vrange_address(handles[i]);
        if (result == VRANGE_OK) {
            wrong += wrong_words(words, BYTES, seeds[i]);
        } else {
            losses++;
            write_words(words, BYTES, ++seeds[i]);
            CHECK(vrange_refilled(handles[i]) == VRANGE_OK);
        }
        pins++;
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
        if (random % 16 == 0) vrange_discard(handles[i]);
        pthread_mutex_unlock(&locks[i]);
        os_yield();
    }
    return NULL;
}

/* An arena that grows past its first step, and shrinks by being closed. */
static void *grower(void *account) {
    uint64_t *content = malloc(5 * MIB);
    CHECK(content);
    write_words(content, 5 * MIB, 3);
    const vrange_part part = {content, 5 * MIB};
    while (!atomic_load(&stop)) {
        vrange_arena *arena;
        CHECK(vrange_arena_open(160 * MIB, account, &arena) == 0);
        for (int i = 0; i < 20; i++) {
            uint64_t handle;
            CHECK(vrange_store(arena, &part, 1, 1000, 0, &handle) == 0);
            wrong += wrong_words(vrange_address(handle), 5 * MIB, 3);
        }
        vrange_arena_close(arena);
    }
    free(content);
    return NULL;
}

static int regenerate(void *to, size_t offset, size_t bytes, void *context) {
    (void)context;
    for (size_t i = 0; i < bytes / 8; i++) ((uint64_t *)to)[i] = word_at(5, offset / 8 + i);
    return 0;
}

static void *array_pinner(void *number) {
    const size_t blocks = ARRAY_BYTES / BLOCK_BYTES, words = BLOCK_BYTES / 8;
    const uint64_t *content = vrange_array_address(array);
    for (size_t block = (uintptr_t)number; !atomic_load(&stop); block = (block + 7) % blocks) {
        size_t failed;
        CHECK(vrange_array_pin(array, block, 1, NULL, &failed) == VRANGE_OK);
        for (size_t i = block * words; i < (block + 1) * words; i++)
            array_wrong += content[i] != word_at(5, i);
        array_pins++;
        vrange_array_unpin(array, block, 1);
        /* A touch: what is lost in the moment that nothing is registered reads as zeros, and no more. */
        const size_t other = (block + 31) % blocks * words;
        const uint64_t seen = *(volatile const uint64_t *)&content[other];
        CHECK(seen == word_at(5, other) || seen == 0);
    }
    return NULL;
}

int main(void) {
    if (vrange_rung() != VRANGE_RUNG_REFAULT) {
        puts("mend: skipped below the refault rung");
        return 0;
    }
    alarm(60);
    vrange_account *account;
    vrange_arena *arena = open_arena(64 * MIB, &account);
    CHECK(vrange_reserve_start(256 * MIB, 1000000, 1) == 0);
    for (size_t i = 0; i < RANGES; i++) {
        CHECK(vrange_allocate(arena, BYTES, &handles[i]) == 0);
        write_words(vrange_address(handles[i]), BYTES, seeds[i] = i + 1);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
        pthread_mutex_init(&locks[i], NULL);
    }
    vrange_account *of_arrays = vrange_account_open("array", VRANGE_KIND_ARRAY);
    CHECK(vrange_array_open(ARRAY_BYTES, BLOCK_BYTES, regenerate, NULL, of_arrays, &array) == 0);
    pthread_t threads[7];
    CHECK(!pthread_create(&threads[0], NULL, closer, NULL));
    CHECK(!pthread_create(&threads[1], NULL, taker, NULL));
    CHECK(!pthread_create(&threads[2], NULL, pinner, (void *)1));
    CHECK(!pthread_create(&threads[3], NULL, pinner, (void *)2));
    CHECK(!pthread_create(&threads[4], NULL, grower, account));
    CHECK(!pthread_create(&threads[5], NULL, array_pinner, (void *)1));
    CHECK(!pthread_create(&threads[6], NULL, array_pinner, (void *)2));
    sleep(SECONDS);
    atomic_store(&stop, true);
    for (int i = 0; i < 7; i++) pthread_join(threads[i], NULL);
    printf("mend: %llu closes, %llu pins with %llu losses and %llu wrong words, "
           "%llu pins of an array with %llu wrong words\n",
           (unsigned long long)closes, (unsigned long long)pins, (unsigned long long)losses,
           (unsigned long long)wrong, (unsigned long long)array_pins, (unsigned long long)array_wrong);
    CHECK(closes > 10 && pins > 100 && losses > 10 && array_pins > 100);
    CHECK(wrong == 0 && array_wrong == 0);
    CHECK(vrange_rung() == VRANGE_RUNG_REFAULT);
    return 0;
}
