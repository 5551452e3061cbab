/* The index that processes share, in one process: what is published is found, unless it was invalidated. */
#include "index_support.h"

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

int main(void) {
    make_directory();
    test_finds_what_was_published();
    test_what_began_before_an_invalidation_is_not_published();
    test_a_full_index_evicts();
    test_an_expired_value_is_not_found();
    remove_directory();
    return 0;
}
