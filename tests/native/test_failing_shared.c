/* An index that processes share while calls fail; see failing_calls.h. */
#include "failing_calls.h"

static void shared_first(void) {
    vrange_shared *own;
    char there[160];
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    snprintf(there, sizeof there, "%s/first-%d", directory, getpid());
    if (!did(vrange_shared_open(there, BUCKETS, BLOCKS, &own))) return;
    if (did(vrange_shared_join(own))) {
        vrange_shared_found found;
        vrange_shared_key k = {.replaces = 1, .stamp = vrange_shared_stamp(own)};
        digest_of(5, k.digest);
        const bool is_put = did(vrange_shared_put(own, &k, value, fill(value, 5, 2), &found));
        const int64_t turn = find(own, 5, &found);
        CHECK(turn == -1 || (is_put && turn == 2));
        CHECK(vrange_shared_is_at(own, there) >= 0);
        vrange_shared_members(own);
        vrange_shared_clear(own);
        CHECK(find(own, 5, &found) == -1);
        vrange_shared_leave(own);
    }
    unlink(there);
}

static void shared_use(void) {
    vrange_shared_found found;
    static uint64_t words[32768];
    char payload[VRANGE_PAYLOAD_MOST];
    unsigned char digest[16];
    int removed;
    for (uint64_t key = 0; key < 4; key++) CHECK(find(shared_index, key, &found) <= 1);
    digest_of(99, digest);
    if (vrange_shared_find(shared_index, digest, payload, sizeof payload, &found) == VRANGE_OK &&
        vrange_shared_read(shared_index, &found, NULL, 0, words) == VRANGE_OK)
        CHECK(wrong_words(words, sizeof words, 99) == 0);
    did(set(shared_index, 20, 3, &found));
    const int64_t turn = find(shared_index, 20, &found);
    CHECK(turn == 3 || turn == -1);
    change(shared_index, 1, &removed);
    CHECK(find(shared_index, 1, &found) == -1);
    vrange_shared_flight flight;
    digest_of(30, digest);
    if (vrange_shared_lead(shared_index, digest, &flight) == VRANGE_OK)
        vrange_shared_land(shared_index, &flight);
    vrange_shared_members(shared_index);
}

static const operation operations[] = {
    {"first shared", shared_first, .is_first = true},
    {"shared use", shared_use, .has_peer = true},
};

int main(int count, char **arguments) {
    return try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
}
