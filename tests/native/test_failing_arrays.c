/* Arrays of blocks while calls fail; see failing_calls.h. */
#include "failing_calls.h"

static void array_use(void) {
    size_t failed_at;
    if (!array) return;
    did(vrange_array_discard(array));
    if (did(vrange_array_pin(array, 1, 2, NULL, &failed_at))) {
        CHECK(((uint64_t *)vrange_array_address(array))[4 * PAGE / 8] == word_at(7, 4 * PAGE / 8));
        vrange_array_unpin(array, 1, 2);
    }
    unsigned char missing[4];
    if (did(vrange_array_pin(array, 0, 4, missing, &failed_at))) {
        static uint64_t content[8192];
        for (size_t block = 0; block < 4; block++) {
            if (!missing[block]) continue;
            regenerate(content, block * 4 * PAGE, 4 * PAGE, NULL);
            if (!did(vrange_array_put(array, block, content))) failed_at = block;
        }
        vrange_array_unpin(array, 0, 4);
    }
    vrange_reserve_offer(1 << 20);
    vrange_array_resident_bytes(array);
}

static void array_touch(void) {
    if (!array) return;
    did(vrange_array_discard(array));
    CHECK(wrong_words(vrange_array_address(array), 16 * PAGE, 7) == 0);
}

static void another_array(void) {
    vrange_account *one = vrange_account_open("another", VRANGE_KIND_ARRAY);
    vrange_array *other;
    size_t failed_at;
    if (!one) return;
    if (did(vrange_array_open(4 * MIB, 2 * MIB, vrange_regenerate_zero, NULL, one, &other))) {
        if (did(vrange_array_pin(other, 0, 2, NULL, &failed_at))) vrange_array_unpin(other, 0, 2);
        vrange_array_close(other);
    }
    vrange_account_close(one);
}

static void array_of_file(void) {
    struct stat found;
    vrange_account *one = vrange_account_open("of file", VRANGE_KIND_ARRAY);
    vrange_array *other;
    size_t failed_at;
    const int descriptor = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &found) < 0 || !one) return;
    vrange_file file = {descriptor, found.st_dev, found.st_ino, "/proc/self/exe", 0};
    if (did(vrange_array_open(4 * PAGE, PAGE, vrange_regenerate_file, &file, one, &other))) {
        if (did(vrange_array_pin(other, 0, 4, NULL, &failed_at))) {
            CHECK(memcmp(vrange_array_address(other), "\177ELF", 4) == 0);
            vrange_array_unpin(other, 0, 4);
        }
        vrange_array_close(other);
    }
    vrange_account_close(one);
}

/* A fork while blocks are pinned, and with an array that can't be refilled. */
static void fork_with_arrays(void) {
    vrange_account *one = vrange_account_open("by hand", VRANGE_KIND_ARRAY);
    vrange_array *other = NULL;
    size_t failed_at;
    static uint64_t content[2048];
    unsigned char missing[4];
    if (!array || !one) return;
    const bool is_open = did(vrange_array_open(16 * PAGE, 4 * PAGE, NULL, NULL, one, &other));
    const bool is_held = is_open && did(vrange_array_pin(other, 0, 2, missing, &failed_at));
    const bool is_put =
        is_held && did(vrange_array_put(other, 0, content)) && did(vrange_array_put(other, 1, content));
    const bool is_pinned = did(vrange_array_pin(array, 0, 3, NULL, &failed_at));
    const pid_t child = fork();
    if (child == 0) {
        if (is_put) CHECK(wrong_words(vrange_array_address(other), 0, 0) == 0);
        if (is_pinned) CHECK(wrong_words(vrange_array_address(array), 12 * PAGE, 7) == 0);
        inject_disarm();
        _exit(0);
    }
    wait_for(child);
    if (is_pinned) vrange_array_unpin(array, 0, 3);
    if (is_held) vrange_array_unpin(other, 0, 2);
    if (is_open) {
        CHECK(vrange_array_pin(other, 3, 1, NULL, &failed_at) < 0); /* nothing fills it */
        vrange_array_close(other);
    }
    vrange_account_close(one);
}

static const operation operations[] = {
    {"array use", array_use},
    {"array touch", array_touch, .is_touch = true},
    {"another array", another_array},
    {"array of file", array_of_file},
    {"fork with arrays", fork_with_arrays},
};

int main(int count, char **arguments) {
    return try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
}
