/* What the tests of the shared index have in common: an index of their own, and values that say whose they are. */
#ifndef INDEX_SUPPORT_H
#define INDEX_SUPPORT_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "service/index_layout.h"

#define BUCKETS 64u
#define BLOCKS 64u

static char directory[] = "/dev/shm/vrange-test-index-XXXXXX";
static char path[128];

static inline void make_path(const char *name) { snprintf(path, sizeof path, "%s/%s", directory, name); }

static inline vrange_shared *open_index(const char *name) {
    vrange_shared *index;
    make_path(name);
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &index) == 0);
    CHECK(vrange_shared_join(index) == 0);
    CHECK(vrange_shared_identity(index) != 0);
    return index;
}

static inline void digest_of(uint64_t key, unsigned char *digest) {
    uint64_t words[2] = {(key + 1) * 0x9e3779b97f4a7c15ull, (key + 7) * 0xc2b2ae3d27d4eb4full};
    words[0] ^= words[0] >> 29;
    words[1] ^= words[1] >> 31;
    memcpy(digest, words, sizeof words);
}

/* A value says whose it is, which one it is, and is the same word all through. */
static inline size_t fill(uint64_t *value, uint64_t key, uint64_t turn) {
    const size_t words = 3 + (key * 7 + turn * 13) % 600;
    value[0] = key;
    value[1] = words;
    for (size_t i = 2; i < words; i++) value[i] = key << 32 | turn;
    return words * sizeof *value;
}

static inline bool is_whole(const uint64_t *value, uint64_t bytes, uint64_t key) {
    if (bytes < 24 || value[0] != key || value[1] * 8 != bytes) return false;
    for (size_t i = 2; i < value[1]; i++)
        if (value[i] != value[2] || value[i] >> 32 != key) return false;
    return true;
}

static inline int put(vrange_shared *index, uint64_t key, uint64_t turn, uint64_t changes, vrange_shared_found *out) {
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    vrange_shared_key k = {.changes = changes, .stamp = vrange_shared_stamp(index)};
    digest_of(key, k.digest);
    return vrange_shared_put(index, &k, value, fill(value, key, turn), out);
}

static inline int set(vrange_shared *index, uint64_t key, uint64_t turn, vrange_shared_found *out) {
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    vrange_shared_key k = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(key, k.digest);
    return vrange_shared_put(index, &k, value, fill(value, key, turn), out);
}

static inline uint64_t changes_of(vrange_shared *index, uint64_t key) {
    unsigned char digest[16];
    digest_of(key, digest);
    return vrange_shared_changes(index, digest);
}

static inline uint64_t change(vrange_shared *index, uint64_t key, int *removed) {
    unsigned char digest[16];
    digest_of(key, digest);
    return vrange_shared_change(index, digest, removed);
}

/* What helps to understand a mixture: where it begins, and whose the parts are. */
static inline void show_torn(const uint64_t *value, uint64_t key, const vrange_shared_found *found) {
    fprintf(stderr, "%d: key %lu, %lu bytes, record %lx of %lx at %lu, word %lx:", getpid(), key, found->bytes,
            found->stamp, found->owner, found->at, found->word);
    for (uint64_t i = 0; i < found->bytes / 8 && i < VRANGE_PAYLOAD_MOST / 8; i++) {
        if (i < 3 || value[i] != value[i - 1]) fprintf(stderr, " [%lu] %lx", i, value[i]);
    }
    fprintf(stderr, "\n");
}

/* The turn of the key's value; -1: it has none. */
static inline int64_t find(vrange_shared *index, uint64_t key, vrange_shared_found *out) {
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    unsigned char digest[16];
    digest_of(key, digest);
    if (vrange_shared_find(index, digest, value, sizeof value, out) != VRANGE_OK) return -1;
    if (out->kind != VRANGE_RECORD_VALUE) return -1;
    if (!is_whole(value, out->bytes, key)) show_torn(value, key, out);
    CHECK(is_whole(value, out->bytes, key));
    return (int64_t)(value[2] & 0xffffffff);
}
/* A child that does not outlive the test. */
static inline pid_t begin_child(void) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

static inline void end_child(pid_t child) {
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
}

/* What processes count together. */
typedef struct {
    _Atomic uint64_t found, wrong, turn, stop;
    _Atomic uint64_t truth[32];  /* of a key: what a computation finds */
    _Atomic uint64_t latest[32]; /* no older turn may be found, once this was stored */
} shared_counts;

static inline shared_counts *make_counts(void) {
    shared_counts *counts =
        mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counts != MAP_FAILED);
    return counts;
}

static inline void make_directory(void) { CHECK(mkdtemp(directory)); }

static inline void remove_directory(void) {
    char command[160];
    snprintf(command, sizeof command, "rm -r %s", directory);
    CHECK(system(command) == 0);
}

#endif
