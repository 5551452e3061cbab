/* Touches behind the end of an index's file, and of files that are none of ours. */
#include <sys/stat.h>

#include "cut_ends.h"
#include "index_support.h"
#include "os/os.h"
#include "service/index_cut.h"

static bool is_refused;

int __real_os_map_over(void *address, size_t bytes);
int __wrap_os_map_over(void *address, size_t bytes);
int __wrap_os_map_over(void *address, size_t bytes) {
    return is_refused ? -ENOMEM : __real_os_map_over(address, bytes);
}

static void cut(const char *name, off_t bytes) {
    make_path(name);
    CHECK(truncate(path, bytes) == 0);
}

static void is_empty(vrange_shared *index) {
    vrange_shared_found found;
    CHECK(find(index, 1, &found) < 0 && vrange_shared_identity(index) == 0 && vrange_shared_count(index) == 0);
    CHECK(vrange_shared_is_at(index, path) == 0);
    put(index, 2, 1, changes_of(index, 2), &found); /* to no member of it */
    CHECK(find(index, 2, &found) < 0);
}

static vrange_shared *with_a_value(const char *name) {
    vrange_shared_found found;
    vrange_shared *const index = open_index(name);
    CHECK(set(index, 1, 1, &found) == 0 && find(index, 1, &found) == 1);
    return index;
}

/* The first that is cut, or the last, or both; the others keep what they have. */
static void test_one_of_several_is_cut(void) {
    static const char *const names[] = {"one", "two", "three"};
    vrange_shared *all[3];
    vrange_shared_found found;
    for (int i = 0; i < 3; i++) all[i] = with_a_value(names[i]);
    index_cut_watch(all[1]); /* again */
    cut("one", 0);
    is_empty(all[0]);
    cut("three", INDEX_PAGE);
    is_empty(all[2]);
    CHECK(find(all[1], 1, &found) == 1 && vrange_shared_identity(all[1]) != 0);
    cut("two", 0);
    is_empty(all[1]);
    for (int i = 0; i < 3; i++) vrange_shared_leave(all[i]);
}

/* ---- what ends the process, as without us --------------------------------------------------------- */

static char *begin(void) {
    make_path("ends"); /* that of a child before */
    unlink(path);
    char *const foreign = map_foreign();
    with_a_value("own");
    return foreign;
}

static void touch_foreign_above(void) { touch(begin()); }

static void touch_foreign_below(void) {
    begin();
    touch(map_foreign());
}

static void touch_without_memory(void) {
    begin();
    vrange_shared_found found;
    vrange_shared *const index = with_a_value("ends");
    is_refused = true;
    cut("ends", 0);
    find(index, 1, &found);
}

static void send(void) {
    begin();
    raise(SIGBUS);
}

int main(void) {
    make_directory();
    test_one_of_several_is_cut();
    ends_by_sigbus(touch_foreign_above);
    ends_by_sigbus(touch_foreign_below);
    ends_by_sigbus(touch_without_memory);
    ends_by_sigbus(send);
    remove_directory();
    return 0;
}
