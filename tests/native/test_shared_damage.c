/* Files that are not what they seem, and nonsense that others write into an index. */
#include <sys/stat.h>

#include "index_support.h"

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

/* ---- other code cuts the file while it is opened ------------------------------------------------- */

int __real_os_make_accessible(void *unused, size_t bytes);
int __wrap_os_make_accessible(void *unused, size_t bytes);
int __real_os_populate(void *address, size_t bytes);
int __wrap_os_populate(void *address, size_t bytes);

static int cut_at = -1; /* the step at which the file is cut; steps are counted from 0 */
static int steps;

static void step(void) {
    if (steps++ == cut_at) CHECK(truncate(path, 0) == 0);
}

int __wrap_os_make_accessible(void *unused, size_t bytes) {
    const int result = __real_os_make_accessible(unused, bytes);
    step();
    return result;
}

int __wrap_os_populate(void *address, size_t bytes) {
    step();
    const int result = __real_os_populate(address, bytes);
    step();
    return result;
}

/* A touch behind the end of the file would end this process. */
static void test_a_file_that_is_cut_while_it_is_opened(void) {
    int most = 1;
    for (int at = 0; at < most; at++) {
        for (int exists = 0; exists < 2; exists++) {
            vrange_shared *index;
            open_index("while");
            make_path("while");
            if (!exists) CHECK(unlink(path) == 0);
            cut_at = at;
            steps = 0;
            const int result = vrange_shared_open(path, BUCKETS, BLOCKS, &index);
            cut_at = -1;
            if (steps > most) most = steps;
            CHECK(result == 0 || result == -EBADMSG || result == -ENOSPC);
            if (result == 0) CHECK(vrange_shared_join(index) == (at < steps ? -EBADMSG : 0));
            make_path("while");
            unlink(path);
        }
    }
    CHECK(most >= 4); /* a file that is made is mapped, populated, and mapped again */
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
    make_directory();
    test_other_files_are_refused();
    test_a_file_that_is_cut_while_it_is_opened();
    test_nonsense_in_the_index_does_no_harm();
    remove_directory();
    return 0;
}
