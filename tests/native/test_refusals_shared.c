/* A shared index: sizes that can't be, records of no member, headers that other code has written over, files of
 * others, and ranges without content. */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "os/os.h"
#include "refusals.h"
#include "service/index_layout.h"

/* A file that others may read, or own, is no index. */
static void test_files_of_others(void) {
    vrange_shared *index;
    make_path("of-others");
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &index) == 0);
    CHECK(chmod(path, 0640) == 0 && vrange_shared_open(path, BUCKETS, BLOCKS, &index) < 0);
    CHECK(chmod(path, 0600) == 0);
    if (geteuid() != 0) return;
    CHECK(chown(path, 12345, 0) == 0 && vrange_shared_open(path, BUCKETS, BLOCKS, &index) < 0);
    CHECK(!os_is_directory(path));
    CHECK(os_allocate("/nowhere/at/all", 0, 4096) < 0 && os_allocate("/proc/self/stat", 0, 4096) < 0);
    CHECK(os_share_over("/nowhere/at/all", 4096, NULL) < 0);
    CHECK(os_empty_shared(NULL, 4096) < 0);
}

static void test_ranges_without_content(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(4 * MIB, &account);
    vrange_shared *index = open_index("ranges");
    vrange_shared_found found;
    uint64_t handle, partial;
    static char note[VRANGE_PAYLOAD_MOST];
    vrange_shared_key key = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(3, key.digest);
    CHECK(vrange_allocate(arena, 4 * PAGE, &handle) == 0 && vrange_allocate(arena, 4 * PAGE, &partial) == 0);
    CHECK(vrange_set_partial(partial, 1) == VRANGE_OK && vrange_release(partial) == VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, partial, 8, "", 0, &found) != VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, handle, 64 * PAGE, "", 0, &found) != VRANGE_OK);
    const int long_note = vrange_shared_put_range(index, &key, handle, 8, note, sizeof note, &found);
    CHECK(long_note == -E2BIG || vrange_rung() == VRANGE_RUNG_SENTINEL);
    CHECK(vrange_release(handle) == VRANGE_OK);
    if (vrange_shared_put_range(index, &key, handle, 8, "note", 4, &found) == VRANGE_OK) {
        uint64_t cursor = 0;
        CHECK(vrange_shared_next(index, &cursor, note, 8, &found) == VRANGE_GONE); /* no room for the place */
    }
    CHECK(vrange_discard(handle) == VRANGE_OK);
    key.stamp = vrange_shared_stamp(index);
    CHECK(vrange_shared_put_range(index, &key, handle, 8, "", 0, &found) != VRANGE_OK);
    CHECK(vrange_free(handle) == VRANGE_OK);
    CHECK(vrange_shared_put_range(index, &key, handle, 8, "", 0, &found) != VRANGE_OK);
    vrange_shared_leave(index);
}

static void test_an_index_refuses(void) {
    vrange_shared *index, *guest;
    vrange_shared_found found, again;
    vrange_shared_flight flight, other;
    unsigned char digest[VRANGE_DIGEST_BYTES];
    static char payload[VRANGE_PAYLOAD_MOST + 8];
    uint64_t cursor = 0;
    make_path("refused");
    static const uint32_t sizes[][2] = {{0, 64}, {3, 64}, {64, 0}, {1u << 31, 64}, {64, UINT32_MAX}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(vrange_shared_open(path, sizes[i][0], sizes[i][1], &index) < 0);
    index = open_index("refused");
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &guest) == 0); /* no member */
    digest_of(1, digest);
    vrange_shared_key key = {.replaces = 1, .stamp = vrange_shared_stamp(index)};
    digest_of(1, key.digest);
    CHECK(vrange_shared_put(guest, &key, payload, 8, &found) < 0 &&
          vrange_shared_lead(guest, digest, &flight) == -ESRCH);
    CHECK(vrange_shared_find(guest, digest, payload, sizeof payload, &found) < 0);
    vrange_shared_leave(guest);
    CHECK(vrange_shared_put(index, &key, payload, sizeof payload, &found) == -E2BIG);
    CHECK(vrange_shared_put_range(index, &key, 0, 8, "", 0, &found) != VRANGE_OK);
    CHECK(vrange_shared_put(index, &key, payload, 100, &found) == 0 && vrange_shared_count(index) == 1);
    CHECK(vrange_shared_find(index, digest, payload, 10, &again) == VRANGE_GONE); /* no room */
    CHECK(vrange_shared_read(index, &found, NULL, 0, payload) == VRANGE_PURGED); /* no range */
    CHECK(vrange_shared_drop(index, found.at, found.word + 1) == VRANGE_GONE);
    CHECK(vrange_shared_drop(index, UINT64_MAX, found.word) == VRANGE_GONE &&
          vrange_shared_drop(index, 0, 0) == VRANGE_GONE);
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_OK);
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_GONE);
    CHECK(vrange_shared_put_error(index, &key, 0, payload, 20, &again) == 0);
    CHECK(vrange_shared_count(index) == 0);
    cursor = 0;
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_GONE);
    key.expires_ns = 1; /* long ago */
    key.stamp = vrange_shared_stamp(index);
    CHECK(vrange_shared_put(index, &key, payload, 100, &found) == 0 && vrange_shared_count(index) == 0);
    CHECK(vrange_shared_find(index, digest, payload, sizeof payload, &again) == VRANGE_GONE);
    cursor = 0;
    CHECK(vrange_shared_next(index, &cursor, payload, sizeof payload, &again) == VRANGE_GONE);
    vrange_shared_drop(index, found.at, found.word);
    CHECK(vrange_shared_drop(index, found.at, found.word) == VRANGE_GONE);

    CHECK(vrange_shared_lead(index, digest, &flight) == VRANGE_OK && flight.leads);
    CHECK(vrange_shared_lead(index, digest, &other) == VRANGE_HELD && !other.leads);
    CHECK(vrange_shared_wait(index, &other, 1000) == VRANGE_HELD &&
          vrange_shared_wait(index, &other, 0) == VRANGE_HELD);
    vrange_shared_waits_for(index, &flight, (int64_t)flight.number);
    CHECK(vrange_shared_leads_to(index, flight.number, &flight, 1) == 1);
    CHECK(vrange_shared_leads_to(index, UINT32_MAX, &flight, 1) == 0);
    vrange_shared_flight wrong = flight;
    wrong.word++;
    CHECK(vrange_shared_leads_to(index, flight.number, &wrong, 1) ==
          1); /* a circle without it: nobody waits for that */
    vrange_shared_waits_for(index, &flight, -1);
    vrange_shared_waits_for(index, &wrong, 1);
    vrange_shared_land(index, &wrong);
    wrong.number = UINT32_MAX;
    vrange_shared_land(index, &wrong);
    vrange_shared_waits_for(index, &wrong, 1);
    CHECK(vrange_shared_wait(index, &wrong, 1000) == VRANGE_OK);
    vrange_shared_land(index, &flight);
    CHECK(vrange_shared_wait(index, &other, 1000) == VRANGE_OK);
    CHECK(vrange_shared_leads_to(index, flight.number, &flight, 1) == 0);
    CHECK(vrange_shared_is_at(index, path) == 1 && vrange_shared_is_at(index, "/nowhere") == 0);
    CHECK(vrange_shared_is_at(index, "/dev/null") == 0);
    vrange_shared_leave(index);
    vrange_shared_leave(index);
    CHECK(vrange_shared_identity(index) == 0);
    static const char *const texts[] = {"", "short",
                                        "no index, but long enough for what is read of one: no index at all, "
                                        "no index at all, no index at all, no index at all, no index at all"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("none", texts[i]);
        make_path("none");
        CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &index) < 0);
    }
}

/* Each field of a header that other code has written over. */
static void test_headers_of_an_index(void) {
    vrange_shared *index = open_index("header");
    index_header right, wrong;
    const int file = open(path, O_RDWR | O_CLOEXEC);
    CHECK(file >= 0 && pread(file, &right, sizeof right, 0) == sizeof right);
    for (int field = 0; field < 9; field++) {
        vrange_shared *other;
        wrong = right;
        switch (field) {
        case 0: wrong.magic[0] ^= 1; break;
        case 1: wrong.version++; break;
        case 2: wrong.page_bytes *= 2; break;
        case 3: wrong.buckets = 0; break;
        case 4: wrong.buckets = 3; break;
        case 5: wrong.buckets = 1u << 31; break;
        case 6: wrong.blocks = 0; break;
        case 7: wrong.blocks = UINT32_MAX; break;
        default: wrong.bytes++;
        }
        CHECK(pwrite(file, &wrong, sizeof wrong, 0) == sizeof wrong);
        CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &other) < 0);
    }
    wrong = right;
    wrong.blocks--; /* as large as it says, and does not fit the rest */
    vrange_shared *other;
    CHECK(pwrite(file, &wrong, sizeof wrong, 0) == sizeof wrong && vrange_shared_open(path, BUCKETS, BLOCKS, &other) < 0);
    CHECK(pwrite(file, &right, sizeof right, 0) == sizeof right && close(file) == 0);
    CHECK(vrange_shared_open(path, BUCKETS, BLOCKS, &other) == 0);
    vrange_shared_leave(other);
    vrange_shared_leave(index);
}

int main(void) {
    make_directory();
    IN_CHILD(test_headers_of_an_index());
    IN_CHILD(test_files_of_others());
    IN_CHILD(test_ranges_without_content());
    IN_CHILD(test_an_index_refuses());
    remove_directory();
    return 0;
}
