/* The work that the vrange proposal of 2013 was measured with, after its description: threads copy a randomly
 * chosen chunk into new memory, search the copy, and give the memory back.
 *
 *   ebizzy MODE THREADS BYTES RANDOM SECONDS
 *
 * MODE says how memory is taken and given back: malloc; limit (one buffer a thread: no allocation at all);
 * dontneed, free (one buffer, and that advice after each use); mmap. RANDOM is 1 for sizes between half of BYTES
 * and BYTES. Prints the records, the processor time in nanoseconds, and KiB of Rss and LazyFree at the end. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHUNKS 10
#define THREADS_MOST 256

typedef enum {
    MALLOC,
    LIMIT,
    DONTNEED,
    FREE,
    MMAP,
    MODES,
} how;

static const char *const names[MODES] = {"malloc", "limit", "dontneed", "free", "mmap"};
static how mode;
static size_t chunk_bytes;
static int is_random;
static uint64_t *chunks[CHUNKS];
static atomic_bool over;
static atomic_ulong records;

static void *map(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static size_t search(const uint64_t *words, size_t count, uint64_t key) {
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (words[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void *take(size_t bytes, void *own) {
    void *memory = mode == MALLOC ? malloc(bytes) : mode == MMAP ? map(bytes)
                                                                 : own;
    if (!memory) abort();
    return memory;
}

static void give(void *memory, size_t bytes) {
    if (mode == MALLOC) free(memory);
    else if (mode == MMAP) munmap(memory, bytes);
    else if (mode != LIMIT) madvise(memory, bytes, mode == FREE ? MADV_FREE : MADV_DONTNEED);
}

static void *work(void *seed) {
    uint64_t state = 88172645463325252ull + (uintptr_t)seed * 7919, done = 0, found = 0;
    void *own = mode == MALLOC || mode == MMAP ? NULL : map(chunk_bytes);
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        size_t bytes = is_random ? chunk_bytes / 2 + (state >> 20) % (chunk_bytes / 2) : chunk_bytes;
        bytes &= ~(size_t)7;
        uint64_t *copy = take(bytes, own);
        memcpy(copy, chunks[state % CHUNKS], bytes);
        found += search(copy, bytes / 8, state % (bytes / 8));
        give(copy, bytes);
        done++;
    }
    atomic_fetch_add(&records, done);
    return (void *)(uintptr_t)(found & 1); /* so that the compiler must search */
}

static long smaps(const char *name) {
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) == 0) kib = atol(line + strlen(name));
    }
    if (file) fclose(file);
    return kib;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    while (mode < MODES && strcmp(words[1], names[mode]) != 0) mode++;
    const int threads = atoi(words[2]);
    chunk_bytes = strtoul(words[3], NULL, 10);
    is_random = atoi(words[4]);
    if (mode == MODES || threads < 1 || threads > THREADS_MOST || chunk_bytes < 4096) return 2;
    for (int i = 0; i < CHUNKS; i++) {
        chunks[i] = map(chunk_bytes);
        for (size_t j = 0; j < chunk_bytes / 8; j++) chunks[i][j] = j;
    }
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    pthread_t all[THREADS_MOST];
    for (uintptr_t i = 0; i < (uintptr_t)threads; i++) {
        if (pthread_create(&all[i], NULL, work, (void *)(i + 1)) != 0) return 1;
    }
    usleep((useconds_t)(atof(words[5]) * 1e6));
    atomic_store(&over, true);
    for (int i = 0; i < threads; i++) pthread_join(all[i], NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    usleep(400000); /* more than vrange lets a block lie idle */
    printf("%lu %lld %ld %ld\n", atomic_load(&records),
           (after.tv_sec - before.tv_sec) * 1000000000ll + (after.tv_nsec - before.tv_nsec), smaps("Rss:"),
           smaps("LazyFree:"));
    return 0;
}
