/* Large values, which stay in the memory of their owner, and are read there. */
#include "index_support.h"

#define SECONDS 2
#define LARGE ((size_t)256 << 10)

/* Every third value of a key is smaller: what was found may have another size by the time it is read. */
static size_t bytes_in(uint64_t turn) { return turn % 3 ? LARGE : LARGE / 2 + 8; }

static uint64_t store_large(vrange_shared *index, vrange_arena *arena, uint64_t key, uint64_t turn,
                            vrange_shared_found *found) {
    static uint64_t words[LARGE / 8];
    const size_t bytes = bytes_in(turn);
    for (size_t i = 0; i < bytes / 8; i++) words[i] = key << 32 | turn;
    const vrange_part part = {words, bytes};
    uint64_t handle;
    CHECK(vrange_store(arena, &part, 1, 0, 0, &handle) == VRANGE_OK);
    CHECK(vrange_set_owner(handle, (uint32_t)key + 1) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
    vrange_shared_key k = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(key, k.digest);
    const int result = vrange_shared_put_range(index, &k, handle, bytes, "note", 4, found);
    CHECK(result == 0 || result == VRANGE_GONE || result == -ESTALE);
    return handle;
}

static void test_a_large_value_is_read_from_its_owner(void) {
    vrange_shared *index = open_index("large");
    int go[2], done[2];
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    const pid_t owner = begin_child();
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
        store_large(index, arena, 1, 4, &found);
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
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_OK && value[0] == (1ull << 32 | 4));
    end_child(owner);
    CHECK(vrange_shared_read(index, &found, NULL, 0, value) == VRANGE_PURGED);
}

/* Stores a value and then waits. Returns its process, once the value is stored. */
static pid_t begin_owner(vrange_shared *index, bool joins, uint64_t turn) {
    int done[2];
    char byte;
    CHECK(pipe(done) == 0);
    const pid_t owner = begin_child();
    if (owner == 0) {
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
    end_child(owner);
    end_child(other);
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
    const pid_t owner = begin_child();
    if (owner == 0) {
        own_without_pause(index);
    }
    static uint64_t value[LARGE / 8];
    char payload[VRANGE_PAYLOAD_MOST];
    uint64_t whole = 0;
    const time_t end = time(NULL) + SECONDS;
    for (unsigned seed = 5; time(NULL) < end;) {
        unsigned char digest[16];
        vrange_shared_found found;
        seed = seed * 1664525u + 1013904223u;
        const uint64_t key = seed >> 16 & 31;
        digest_of(key, digest);
        if (vrange_shared_find(index, digest, payload, sizeof payload, &found) != VRANGE_OK) continue;
        const int result = vrange_shared_read(index, &found, NULL, 0, value);
        CHECK(result == VRANGE_OK || result == VRANGE_PURGED || result == VRANGE_GONE);
        if (result != VRANGE_OK) continue;
        whole++;
        CHECK(value[0] >> 32 == key && found.bytes == bytes_in((uint32_t)value[0]));
        for (size_t i = 1; i < found.bytes / 8; i++) CHECK(value[i] == value[0]);
    }
    int status;
    CHECK(waitpid(owner, &status, WNOHANG) == 0);
    end_child(owner);
    CHECK(whole > 100);
}

/* There others can't tell the content of a range from what the kernel took, so its place is not published. */
static void test_the_sentinel_rung_publishes_no_place(void) {
    vrange_shared *index = open_index("sentinel");
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    const vrange_part part = {"content", 8};
    vrange_shared_key key = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    vrange_shared_found found;
    uint64_t handle;
    CHECK(vrange_store(arena, &part, 1, 0, 0, &handle) == VRANGE_OK && vrange_release(handle) == VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, handle, 8, "note", 4, &found) == -ENOTSUP);
}

int main(void) {
    make_directory();
    if (vrange_rung() == VRANGE_RUNG_SENTINEL) {
        test_the_sentinel_rung_publishes_no_place();
        remove_directory();
        return 0;
    }
    test_a_large_value_is_read_from_its_owner();
    test_another_process_is_not_read_in_the_owners_place();
    test_a_reader_never_gets_a_mixture();
    remove_directory();
    return 0;
}
