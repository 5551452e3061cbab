/* The index that processes share: what they find in it, also while others are killed, stopped, or write nonsense
 * into it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "service/index_layout.h"

#define BUCKETS 64u
#define BLOCKS 64u
#define SECONDS 1

static char directory[] = "/dev/shm/vrange-test-index-XXXXXX";
static char path[128];

static void make_path(const char *name) { snprintf(path, sizeof path, "%s/%s", directory, name); }

static vrange_shared *open_index(const char *name) {
    vrange_shared *index;
    make_path(name);
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &index) == 0);
    CHECK(vrange_shared_join(index) == 0);
    CHECK(vrange_shared_identity(index) != 0);
    return index;
}

static void digest_of(uint64_t key, unsigned char *digest) {
    uint64_t words[2] = {(key + 1) * 0x9e3779b97f4a7c15ull, (key + 7) * 0xc2b2ae3d27d4eb4full};
    words[0] ^= words[0] >> 29;
    words[1] ^= words[1] >> 31;
    memcpy(digest, words, sizeof words);
}

/* A value says whose it is, which one it is, and is the same word all through. */
static size_t fill(uint64_t *value, uint64_t key, uint64_t turn) {
    const size_t words = 3 + (key * 7 + turn * 13) % 600;
    value[0] = key;
    value[1] = words;
    for (size_t i = 2; i < words; i++) value[i] = key << 32 | turn;
    return words * sizeof *value;
}

static bool is_whole(const uint64_t *value, uint64_t bytes, uint64_t key) {
    if (bytes < 24 || value[0] != key || value[1] * 8 != bytes) return false;
    for (size_t i = 2; i < value[1]; i++)
        if (value[i] != value[2] || value[i] >> 32 != key) return false;
    return true;
}

static int put(vrange_shared *index, uint64_t key, uint64_t turn, uint64_t changes, vrange_shared_found *out) {
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    vrange_shared_key k = {.changes = changes, .stamp = vrange_shared_stamp(index)};
    digest_of(key, k.digest);
    return vrange_shared_put(index, &k, value, fill(value, key, turn), out);
}

static int set(vrange_shared *index, uint64_t key, uint64_t turn, vrange_shared_found *out) {
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    vrange_shared_key k = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(key, k.digest);
    return vrange_shared_put(index, &k, value, fill(value, key, turn), out);
}

static uint64_t changes_of(vrange_shared *index, uint64_t key) {
    unsigned char digest[16];
    digest_of(key, digest);
    return vrange_shared_changes(index, digest);
}

static uint64_t change(vrange_shared *index, uint64_t key, int *removed) {
    unsigned char digest[16];
    digest_of(key, digest);
    return vrange_shared_change(index, digest, removed);
}

/* The turn of the key's value; -1: it has none. */
static int64_t find(vrange_shared *index, uint64_t key, vrange_shared_found *out) {
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    unsigned char digest[16];
    digest_of(key, digest);
    if (vrange_shared_find(index, digest, value, sizeof value, out) != VRANGE_OK) return -1;
    if (out->kind != VRANGE_RECORD_VALUE) return -1;
    CHECK(is_whole(value, out->bytes, key));
    return (int64_t)(value[2] & 0xffffffff);
}

/* ---- one process -------------------------------------------------------------------------------- */

static void test_finds_what_was_published(void) {
    vrange_shared *index = open_index("simple");
    vrange_shared_found found, other;
    int removed;
    CHECK(find(index, 1, &found) == -1);
    CHECK(put(index, 1, 5, changes_of(index, 1), &found) == 0);
    CHECK(find(index, 1, &other) == 5);
    CHECK(other.at == found.at && other.word == found.word && other.stamp == found.stamp);
    change(index, 1, &removed);
    CHECK(removed == 1 && find(index, 1, &found) == -1);
    change(index, 1, &removed);
    CHECK(removed == 0);
    for (uint64_t key = 0; key < 100; key++) CHECK(put(index, key, key, changes_of(index, key), &found) == 0);
    uint64_t cursor = 0, value[VRANGE_PAYLOAD_MOST / 8], seen = 0;
    while (vrange_shared_next(index, &cursor, value, sizeof value, &found) == VRANGE_OK) {
        CHECK(is_whole(value, found.bytes, value[0]));
        seen++;
    }
    CHECK(seen == 100);
    vrange_shared_clear(index);
    for (uint64_t key = 0; key < 100; key++) CHECK(find(index, key, &found) == -1);
    vrange_shared_leave(index);
    CHECK(put(index, 1, 5, changes_of(index, 1), &found) == -ESRCH);
}

static void test_what_began_before_an_invalidation_is_not_published(void) {
    vrange_shared *index = open_index("stale");
    vrange_shared_found found;
    int removed;
    const uint64_t before = changes_of(index, 1);
    const uint64_t after = change(index, 1, &removed);
    CHECK(put(index, 1, 5, before, &found) == -ESTALE && find(index, 1, &found) == -1);
    CHECK(put(index, 1, 6, after, &found) == 0 && find(index, 1, &found) == 6);
    vrange_shared_clear(index);
    CHECK(put(index, 1, 7, after, &found) == -ESTALE);
}

static void test_a_full_index_evicts(void) {
    vrange_shared *index = open_index("full");
    vrange_shared_found found;
    int there = 0;
    for (uint64_t key = 0; key < 5000; key++) {
        CHECK(put(index, key, 1, changes_of(index, key), &found) == 0);
        CHECK(find(index, key, &found) == 1);
    }
    for (uint64_t key = 0; key < 5000; key++) there += find(index, key, &found) == 1;
    CHECK(there > 100 && there < 2000); /* bounded: the index has room for 960 records */
}

static void test_an_expired_value_is_not_found(void) {
    vrange_shared *index = open_index("expiry");
    vrange_shared_found found;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    vrange_shared_key key = {.changes = 0, .stamp = 1, .expires_ns = now_ns - 1};
    digest_of(3, key.digest);
    CHECK(vrange_shared_put(index, &key, "x", 1, &found) == 0);
    CHECK(vrange_shared_find(index, key.digest, NULL, 0, &found) == VRANGE_GONE);
    key.expires_ns = now_ns + 3600000000000ull;
    char payload[8];
    CHECK(vrange_shared_put(index, &key, "x", 1, &found) == 0);
    CHECK(vrange_shared_find(index, key.digest, payload, sizeof payload, &found) == VRANGE_OK);
    CHECK(found.expires_ns == key.expires_ns);
}

/* ---- several processes -------------------------------------------------------------------------- */

typedef struct {
    _Atomic uint64_t found, wrong, turn, stop;
    _Atomic uint64_t truth[32];  /* of a key: what a computation finds */
    _Atomic uint64_t latest[32]; /* no older turn may be found, once this was stored */
} shared_counts;

static shared_counts *counts;

static void make_counts(void) {
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counts != MAP_FAILED);
}

static void publish_at_random(vrange_shared *index, unsigned seed) {
    vrange_shared_found found;
    for (;;) {
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31, turn = atomic_fetch_add(&counts->turn, 1) & 0x7fffffff;
        int removed;
        if (seed >> 8 & 1) {
            set(index, key, turn, &found);
        } else if (seed >> 9 & 1) {
            change(index, key, &removed);
        } else {
            if (find(index, key, &found) >= 0) atomic_fetch_add(&counts->found, 1);
        }
    }
}

static void test_killed_writers_leave_the_index_whole(void) {
    vrange_shared *index = open_index("killed");
    make_counts();
    enum { WRITERS = 4 };
    pid_t writers[WRITERS] = {0};
    unsigned seed = 7;
    for (int turn = 0; turn < 60; turn++) {
        for (int i = 0; i < WRITERS; i++) {
            if (writers[i]) continue;
            writers[i] = fork();
            if (writers[i] == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                CHECK(vrange_shared_identity(index) == 0);
                CHECK(vrange_shared_join(index) == 0);
                publish_at_random(index, (unsigned)getpid());
            }
        }
        usleep(2000 + (seed = seed * 1664525u + 1013904223u) % 5000);
        const int which = turn % WRITERS;
        int status;
        CHECK(kill(writers[which], SIGKILL) == 0 && waitpid(writers[which], &status, 0) == writers[which]);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* not exit(1): no check failed in it */
        writers[which] = 0;
    }
    for (int i = 0; i < WRITERS; i++) {
        int status;
        if (!writers[i]) continue;
        kill(writers[i], SIGKILL);
        CHECK(waitpid(writers[i], &status, 0) == writers[i] && WIFSIGNALED(status));
    }
    CHECK(atomic_load(&counts->found) > 100);
    vrange_shared_found found;
    int removed;
    for (uint64_t key = 0; key < 32; key++) {
        CHECK(set(index, key, 77, &found) == 0);
        CHECK(find(index, key, &found) == 77);
        change(index, key, &removed);
        CHECK(removed == 1);
    }
    CHECK(vrange_shared_members(index) == 0);
}

/* One process changes what is true and then sets or invalidates the value. Once that is done, a reader must not
 * find an older one, though others compute and publish without pause what they began before. */
static void test_no_value_older_than_an_invalidation_is_found(void) {
    vrange_shared *index = open_index("order");
    make_counts();
    pid_t others[3];
    for (int i = 0; i < 3; i++) {
        others[i] = fork();
        if (others[i]) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK(vrange_shared_join(index) == 0);
        vrange_shared_found found;
        unsigned seed = (unsigned)getpid();
        while (!atomic_load(&counts->stop)) {
            seed = seed * 1664525u + 1013904223u;
            const uint64_t key = seed >> 16 & 31;
            const uint64_t latest = atomic_load(&counts->latest[key]);
            const uint64_t changes = changes_of(index, key);
            const uint64_t computed = atomic_load(&counts->truth[key]);
            const int64_t turn = find(index, key, &found);
            if (turn >= 0 && (uint64_t)turn < latest) atomic_fetch_add(&counts->wrong, 1);
            if (seed >> 9 & 1) sched_yield();
            if (turn < 0) put(index, key, computed, changes, &found);
        }
        _exit(0);
    }
    const time_t end = time(NULL) + SECONDS + 1;
    unsigned seed = 3;
    for (uint64_t turn = 1; time(NULL) < end; turn++) {
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31;
        int removed;
        vrange_shared_found found;
        atomic_store(&counts->truth[key], turn);
        if (seed >> 10 & 1) {
            if (set(index, key, turn, &found) != 0) continue;
        } else {
            change(index, key, &removed);
        }
        atomic_store(&counts->latest[key], turn);
    }
    atomic_store(&counts->stop, 1);
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(waitpid(others[i], &status, 0) == others[i] && status == 0);
    }
    CHECK(atomic_load(&counts->wrong) == 0);
}

/* Two members of one place would each take the other for dead, and write to its records. */
static void test_processes_that_join_at_once_are_different_members(void) {
    vrange_shared *index = open_index("join");
    enum { TOGETHER = 4,
           ROUNDS = 300 };
    make_counts();
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        pid_t joining[TOGETHER];
        for (int i = 0; i < TOGETHER; i++) {
            joining[i] = fork();
            if (joining[i]) continue;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (atomic_load(&counts->turn) != round) continue;
            CHECK(vrange_shared_join(index) == 0);
            atomic_store(&counts->truth[i], vrange_shared_identity(index));
            atomic_fetch_add(&counts->found, 1);
            for (;;) pause();
        }
        atomic_store(&counts->found, 0);
        atomic_store(&counts->turn, round);
        if (round % 3 == 0) kill(joining[round % TOGETHER], SIGKILL); /* perhaps while it joins */
        const uint64_t all = round % 3 ? TOGETHER : TOGETHER - 1;
        while (atomic_load(&counts->found) < all) sched_yield();
        for (int i = 0; round % 3 && i < TOGETHER; i++) {
            for (int other = 0; other < i; other++)
                CHECK((uint32_t)counts->truth[i] != (uint32_t)counts->truth[other]);
        }
        if (round % 3) CHECK(vrange_shared_members(index) == TOGETHER);
        for (int i = 0; i < TOGETHER; i++) {
            kill(joining[i], SIGKILL);
            CHECK(waitpid(joining[i], NULL, 0) == joining[i]);
        }
        CHECK(vrange_shared_members(index) == 0);
    }
}

static void test_blocks_of_dead_members_are_used_again(void) {
    vrange_shared *index = open_index("blocks");
    vrange_shared_found found;
    for (int turn = 0; turn < 6; turn++) { /* each child takes all blocks there are */
        const pid_t child = fork();
        if (child == 0) {
            CHECK(vrange_shared_join(index) == 0);
            for (uint64_t key = 0; key < 2000; key++)
                CHECK(put(index, key, 9, changes_of(index, key), &found) == 0);
            kill(getpid(), SIGKILL);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    }
    int there = 0;
    for (uint64_t key = 0; key < 2000; key++) there += find(index, key, &found) == 9;
    CHECK(there > 100); /* small values outlive their process */
    for (uint64_t key = 0; key < 2000; key++) CHECK(put(index, key, 1, changes_of(index, key), &found) == 0);
}

/* ---- large values ------------------------------------------------------------------------------- */

#define LARGE ((size_t)256 << 10)

static uint64_t store_large(vrange_shared *index, vrange_arena *arena, uint64_t key, uint64_t turn,
                            vrange_shared_found *found) {
    static uint64_t words[LARGE / 8];
    for (size_t i = 0; i < LARGE / 8; i++) words[i] = key << 32 | turn;
    const vrange_part part = {words, LARGE};
    uint64_t handle;
    CHECK(vrange_store(arena, &part, 1, 0, 0, &handle) == VRANGE_OK);
    CHECK(vrange_set_owner(handle, (uint32_t)key + 1) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
    vrange_shared_key k = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(key, k.digest);
    const int result = vrange_shared_put_range(index, &k, handle, LARGE, "note", 4, found);
    CHECK(result == 0 || result == VRANGE_GONE || result == -ESTALE);
    return handle;
}

static void test_a_large_value_is_read_from_its_owner(void) {
    vrange_shared *index = open_index("large");
    int go[2], done[2];
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    const pid_t owner = fork();
    if (owner == 0) {
        vrange_account *account;
        vrange_arena *arena = open_arena(16 * MIB, &account);
        vrange_shared_found found;
        char step;
        CHECK(vrange_shared_join(index) == 0);
        const uint64_t handle = store_large(index, arena, 1, 1, &found);
        CHECK(write(done[1], "1", 1) == 1 && read(go[0], &step, 1) == 1);
        CHECK(vrange_discard(handle) == VRANGE_OK);
        CHECK(write(done[1], "2", 1) == 1 && read(go[0], &step, 1) == 1);
        store_large(index, arena, 1, 3, &found);
        CHECK(write(done[1], "3", 1) == 1 && read(go[0], &step, 1) == 1);
        _exit(0);
    }
    static uint64_t value[LARGE / 8];
    unsigned char digest[16];
    char payload[VRANGE_PAYLOAD_MOST], step;
    vrange_shared_found found;
    digest_of(1, digest);
    CHECK(read(done[0], &step, 1) == 1);
    CHECK(vrange_shared_find(index, digest, payload, sizeof payload, &found) == VRANGE_OK);
    CHECK(found.kind == VRANGE_RECORD_RANGE && found.bytes == LARGE);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_OK);
    CHECK(value[0] == (1ull << 32 | 1) && value[LARGE / 8 - 1] == value[0]);
    uint64_t head[5] = {0};
    memset(value, 0, sizeof value);
    CHECK(vrange_shared_read(index, &found, head, sizeof head, value) == VRANGE_OK);
    CHECK(head[0] == (1ull << 32 | 1) && head[4] == head[0] && value[0] == head[0]);
    CHECK(value[LARGE / 8 - 6] == head[0] && value[LARGE / 8 - 5] == 0);
    CHECK(vrange_shared_read(index, &found, value, LARGE, NULL) == VRANGE_OK);
    CHECK(value[LARGE / 8 - 1] == head[0]);
    CHECK(vrange_shared_read(index, &found, value, LARGE + 8, NULL) == VRANGE_PURGED);
    CHECK(write(go[1], "g", 1) == 1 && read(done[0], &step, 1) == 1);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_PURGED);
    CHECK(write(go[1], "g", 1) == 1 && read(done[0], &step, 1) == 1);
    CHECK(vrange_shared_find(index, digest, payload, sizeof payload, &found) == VRANGE_OK);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_OK && value[0] == (1ull << 32 | 3));
    CHECK(kill(owner, SIGKILL) == 0 && waitpid(owner, NULL, 0) == owner);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_PURGED);
}

/* Stores a value and then waits. Returns its process, once the value is stored. */
static pid_t begin_owner(vrange_shared *index, bool joins, uint64_t turn) {
    int done[2];
    char byte;
    CHECK(pipe(done) == 0);
    const pid_t owner = fork();
    if (owner == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        vrange_account *account;
        vrange_arena *arena = open_arena(16 * MIB, &account);
        vrange_shared_found found;
        CHECK(vrange_shared_join(index) == 0);
        store_large(index, arena, joins ? 1 : 2, turn, &found);
        CHECK(write(done[1], "x", 1) == 1);
        for (;;) pause();
    }
    CHECK(read(done[0], &byte, 1) == 1);
    close(done[0]);
    close(done[1]);
    return owner;
}

/* Process numbers are used again. A later process may even have the same addresses and the same states. */
static void test_another_process_is_not_read_in_the_owners_place(void) {
    vrange_shared *index = open_index("owners");
    const pid_t owner = begin_owner(index, true, 1), other = begin_owner(index, false, 2);
    static uint64_t value[LARGE / 8];
    unsigned char digest[16];
    char payload[VRANGE_PAYLOAD_MOST];
    vrange_shared_found found;
    digest_of(1, digest);
    CHECK(vrange_shared_find(index, digest, payload, sizeof payload, &found) == VRANGE_OK);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_OK);
    const int file = open(path, O_RDWR);
    index_member *members = mmap(NULL, MEMBERS * sizeof *members, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                                 INDEX_PAGE);
    CHECK(members != MAP_FAILED);
    for (int i = 0; i < 8; i++) {
        const uint64_t word = atomic_load(&members[i].word);
        if ((uint32_t)word != (uint32_t)owner) continue;
        atomic_store(&members[i].word, (word & ~0xffffffffull) | (uint32_t)other);
    }
    memset(value, 0, sizeof value);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_PURGED);
    CHECK(kill(owner, SIGKILL) == 0 && waitpid(owner, NULL, 0) == owner);
    CHECK(kill(other, SIGKILL) == 0 && waitpid(other, NULL, 0) == other);
}

/* The owner stores, frees, discards and lets the kernel take without pause. */
static void own_without_pause(vrange_shared *index) {
    vrange_account *account;
    vrange_arena *arena = open_arena(32 * MIB, &account);
    uint64_t handles[32] = {0};
    unsigned seed = 11;
    CHECK(vrange_shared_join(index) == 0);
    for (uint64_t turn = 1;; turn++) {
        vrange_shared_found found;
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31;
        if (seed >> 9 & 1 && handles[key]) vrange_discard(handles[key]);
        if (handles[key]) vrange_free(handles[key]);
        handles[key] = store_large(index, arena, key, turn, &found);
        const uint64_t offered = handles[seed >> 22 & 31];
        vrange_range_info info;
        if (!offered || vrange_range_read(offered, &info) != VRANGE_OK) continue;
        if (info.state == VRANGE_STATE_IDLE) madvise(info.address, info.bytes / 2, MADV_PAGEOUT);
    }
}

static void test_a_reader_never_gets_a_mixture(void) {
    vrange_shared *index = open_index("mixture");
    const pid_t owner = fork();
    if (owner == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        own_without_pause(index);
    }
    static uint64_t value[LARGE / 8];
    char payload[VRANGE_PAYLOAD_MOST];
    uint64_t whole = 0, gone = 0;
    const time_t end = time(NULL) + SECONDS + 1;
    for (unsigned seed = 5; time(NULL) < end;) {
        unsigned char digest[16];
        vrange_shared_found found;
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31;
        digest_of(key, digest);
        if (vrange_shared_find(index, digest, payload, sizeof payload, &found) != VRANGE_OK) continue;
        const int result = vrange_shared_read(index, &found, NULL, 0, value);
        CHECK(result == VRANGE_OK || result == VRANGE_PURGED || result == VRANGE_GONE);
        if (result != VRANGE_OK) {
            gone++;
            continue;
        }
        whole++;
        CHECK(value[0] >> 32 == key);
        for (size_t i = 1; i < LARGE / 8; i++) CHECK(value[i] == value[0]);
    }
    int status;
    CHECK(waitpid(owner, &status, WNOHANG) == 0);
    CHECK(kill(owner, SIGKILL) == 0 && waitpid(owner, NULL, 0) == owner);
    CHECK(whole > 100);
    (void)gone;
}

/* ---- one computation at a time ------------------------------------------------------------------ */

static void test_one_process_computes_and_the_others_wait(void) {
    vrange_shared *index = open_index("flights");
    unsigned char digest[16];
    vrange_shared_flight led, other;
    digest_of(1, digest);
    CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
    CHECK(vrange_shared_lead(index, digest, &other) == VRANGE_HELD);
    CHECK(vrange_shared_wait(index, &other, 1000000) == VRANGE_HELD);
    int told[2];
    char byte;
    CHECK(pipe(told) == 0);
    const pid_t waiter = fork();
    if (waiter == 0) {
        CHECK(vrange_shared_join(index) == 0);
        CHECK(vrange_shared_lead(index, digest, &other) == VRANGE_HELD);
        CHECK(write(told[1], "x", 1) == 1);
        while (vrange_shared_wait(index, &other, 50000000) == VRANGE_HELD) {}
        _exit(0);
    }
    CHECK(read(told[0], &byte, 1) == 1);
    usleep(20000);
    CHECK(waitpid(waiter, NULL, WNOHANG) == 0);
    vrange_shared_land(index, &led);
    int status;
    CHECK(waitpid(waiter, &status, 0) == waiter && status == 0);
    CHECK(vrange_shared_wait(index, &other, 0) == VRANGE_OK);
    CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
    vrange_shared_land(index, &led);
}

static void test_a_leader_that_is_killed_or_stopped_is_not_waited_for(void) {
    vrange_shared *index = open_index("leaders");
    unsigned char digest[16];
    digest_of(2, digest);
    for (int signal = SIGKILL;; signal = SIGSTOP) {
        int told[2];
        char byte;
        CHECK(pipe(told) == 0);
        const pid_t leader = fork();
        if (leader == 0) {
            vrange_shared_flight led;
            CHECK(vrange_shared_join(index) == 0);
            CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
            CHECK(write(told[1], "x", 1) == 1);
            for (;;) pause();
        }
        vrange_shared_flight awaited;
        CHECK(read(told[0], &byte, 1) == 1);
        CHECK(vrange_shared_lead(index, digest, &awaited) == VRANGE_HELD);
        CHECK(kill(leader, signal) == 0); /* not reaped yet: a zombie is as dead */
        while (vrange_shared_wait(index, &awaited, 50000000) == VRANGE_HELD) {}
        vrange_shared_flight led;
        CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
        vrange_shared_land(index, &led);
        CHECK(kill(leader, SIGKILL) == 0 && waitpid(leader, NULL, 0) == leader);
        if (signal == SIGSTOP) return;
    }
}

static void test_a_circle_of_waits_is_found(void) {
    vrange_shared *index = open_index("circle");
    unsigned char one[16], two[16];
    vrange_shared_flight a, b;
    digest_of(1, one);
    digest_of(2, two);
    CHECK(vrange_shared_lead(index, one, &a) == VRANGE_OK && vrange_shared_lead(index, two, &b) == VRANGE_OK);
    CHECK(!vrange_shared_leads_to(index, b.number, &a, 1));
    vrange_shared_waits_for(index, &b, a.number);
    CHECK(vrange_shared_leads_to(index, b.number, &a, 1));
    vrange_shared_waits_for(index, &b, -1);
    CHECK(!vrange_shared_leads_to(index, b.number, &a, 1));
    CHECK(vrange_shared_leads_to(index, a.number, &a, 1));
}

/* ---- files that are not what they seem ---------------------------------------------------------- */

static void write_file(const char *name, const void *data, size_t bytes, mode_t mode) {
    make_path(name);
    const int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    CHECK(file >= 0 && write(file, data, bytes) == (ssize_t)bytes);
    close(file);
}

static int opened(void) {
    vrange_shared *index;
    return vrange_shared_open(path, BUCKETS, BLOCKS, &index);
}

static void test_other_files_are_refused(void) {
    static char page[3 * INDEX_PAGE];
    index_header *head = (index_header *)page;
    write_file("empty", "", 0, 0600);
    CHECK(opened() == -EBADMSG);
    write_file("short", "vrangeIX", 8, 0600);
    CHECK(opened() == -EBADMSG);
    write_file("zeros", page, sizeof page, 0600);
    CHECK(opened() == -EBADMSG);
    memcpy(head->magic, INDEX_MAGIC, 8);
    head->version = INDEX_VERSION + 1;
    write_file("newer", page, sizeof page, 0600);
    CHECK(opened() == -EPROTO);
    *head = (index_header){INDEX_MAGIC, INDEX_VERSION, INDEX_PAGE, 64, 64, sizeof page};
    write_file("cut", page, sizeof page, 0600);
    CHECK(opened() == -EBADMSG);
    write_file("readable", page, sizeof page, 0644);
    CHECK(chmod(path, 0644) == 0 && opened() == -EPERM);
    make_path("link");
    CHECK(symlink("/etc/passwd", path) == 0 && opened() == -ELOOP);
    make_path("pipe");
    CHECK(mkfifo(path, 0600) == 0 && opened() == -ENXIO);
    make_path("nowhere/index");
    CHECK(opened() == -ENOENT);
}

/* Nonsense may be found, but nothing is read or written outside of the index. */
static void test_nonsense_in_the_index_does_no_harm(void) {
    vrange_shared *index = open_index("nonsense");
    make_path("nonsense");
    struct stat is;
    CHECK(stat(path, &is) == 0);
    const int file = open(path, O_RDWR);
    unsigned char *bytes = mmap(NULL, (size_t)is.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(bytes != MAP_FAILED);
    static uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    static char large[1 << 20];
    uint64_t seed = 99;
    vrange_shared_found found;
    int removed;
    for (int turn = 0; turn < 3000; turn++) {
        for (int i = 0; i < 200; i++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            const size_t at = (size_t)(seed >> 16) % ((size_t)is.st_size / 8 - 1) * 8;
            const uint64_t word = seed >> 60 ? seed * seed : UINT64_MAX;
            memcpy(bytes + at, &word, 8);
        }
        const uint64_t key = seed >> 40 & 63;
        unsigned char digest[16];
        vrange_shared_flight flight;
        digest_of(key, digest);
        vrange_shared_find(index, digest, value, sizeof value, &found);
        put(index, key, 1, changes_of(index, key), &found);
        if (turn % 16 == 0) {
            uint64_t cursor = 0;
            while (vrange_shared_next(index, &cursor, value, sizeof value, &found) == VRANGE_OK) {
                if (found.kind == VRANGE_RECORD_RANGE && found.bytes <= sizeof large)
                    CHECK(vrange_shared_read(index, &found, NULL, 0, large) != VRANGE_OK);
            }
        }
        change(index, key, &removed);
        if (vrange_shared_lead(index, digest, &flight) == VRANGE_HELD) vrange_shared_wait(index, &flight, 1000);
        vrange_shared_leads_to(index, flight.number, &flight, 1);
        vrange_shared_land(index, &flight);
        vrange_shared_members(index);
    }
}

int main(void) {
    CHECK(mkdtemp(directory));
    test_finds_what_was_published();
    test_what_began_before_an_invalidation_is_not_published();
    test_a_full_index_evicts();
    test_an_expired_value_is_not_found();
    test_processes_that_join_at_once_are_different_members();
    test_killed_writers_leave_the_index_whole();
    test_no_value_older_than_an_invalidation_is_found();
    test_blocks_of_dead_members_are_used_again();
    test_a_large_value_is_read_from_its_owner();
    test_another_process_is_not_read_in_the_owners_place();
    test_a_reader_never_gets_a_mixture();
    test_one_process_computes_and_the_others_wait();
    test_a_leader_that_is_killed_or_stopped_is_not_waited_for();
    test_a_circle_of_waits_is_found();
    test_other_files_are_refused();
    test_nonsense_in_the_index_does_no_harm();
    char command[160];
    snprintf(command, sizeof command, "rm -r %s", directory);
    CHECK(system(command) == 0);
    return 0;
}
