/* Limits: texts of /proc that a kernel does not write, a process without descriptors, and a second watcher. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/stat.h>

#include "os/os.h"
#include "pressure/memory_limits.h"
#include "refusals.h"

static int groups_of(const char *cgroup, const char *mounts) {
    static vrange_cgroups found;
    vrange_limit limit;
    write_text("cgroup", cgroup);
    write_text("mountinfo", mounts);
    const int result = vrange_cgroups_read(directory, &found);
    CHECK(result <= 0 && found.count <= VRANGE_CGROUPS);
    vrange_limit_of(&found, &limit);
    CHECK(limit.bytes > 0);
    return (int)found.count;
}

#define MOUNT_V1 "40 30 0:35 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define MOUNT_V2 "42 32 0:39 / /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw\n"

static void test_cgroup_texts(void) {
    static const char *const memberships[] = {"",
                                              "\n\n:::\n",
                                              "9:memory",
                                              "9:memory:/a/b\n0::/a\n",
                                              "0::/../x\n",
                                              "0::/a/../b\n",
                                              "9:cpu,memory:/\n",
                                              "9:memoryx,memory:/..\n",
                                              "0::/\n",
                                              "9:mem:/\n1:name=systemd:/\n",
                                              "x:y\n0\n",
                                              "0::/a..b/..c/d..\n",
                                              "7:memory,cpu:/a\n0:x:/b\n",
                                              "7:memory\n",
                                              "7:,memory,:/sys\n"};
    static const char *const mounts[] = {
        "",
        "\n",
        "1 2\n",
        MOUNT_V1,
        MOUNT_V2,
        MOUNT_V1 MOUNT_V2,
        "40 30 0:35 /a /mnt\\040x rw - cgroup cgroup rw,memory\n",
        "40 30 0:35 /a /mnt\\9 rw - cgroup cgroup rw,cpu\n40 30 0:35 / /m\\04 rw - cgroup2 c rw\n",
        "40 30 0:35 /a\\0404 /mnt\\048\\08 rw - cgroup cgroup rw,memory,x\n40 30 0:35 /a.. /mnt\\ rw - cgroup2 "
        "c rw\n",
        "40 30 0:35 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,xmemory,memoryx\n40 30 0:35 /aa /m rw - "
        "cgroup2 c rw\n",
        "40 30 0:35 /.. /mnt rw - cgroup cgroup rw,memory\n",
        "40 30 0:35 / /mnt rw - cgroup\n40 30 0:35 / /mnt rw - cgroup cgroup\n40 30 0:35 / /mnt rw -\n40 30 "
        "0:35 /\n",
        "42 32 0:39 / /nowhere rw - cgroup2 c rw\n" MOUNT_V2 "42 32 0:39 /a /sys/fs/cgroup rw - cgroup2 c rw\n",
    };
    for (size_t i = 0; i < sizeof memberships / sizeof *memberships; i++)
        for (size_t j = 0; j < sizeof mounts / sizeof *mounts; j++) groups_of(memberships[i], mounts[j]);
    static char long_text[3 * VRANGE_PATH_BYTES];
    memset(long_text, 'p', sizeof long_text - 1);
    memcpy(long_text, "0::/", 4);
    groups_of(long_text, MOUNT_V2);
    static vrange_cgroups found;
    CHECK(vrange_cgroups_read("/nowhere", &found) < 0);
    CHECK(vrange_cgroups_read(long_text + 4, &found) < 0);
}

/* Texts that are longer than others, and more cgroups around each other than are looked at. */
static void test_long_cgroup_texts(void) {
    enum { DEEP = 40,
           TEXT = 3 << 20 };
    static char text[TEXT], place[TEXT_BYTES];
    char root[200];
    size_t length = 0;
    while (length < 40000) length += (size_t)sprintf(text + length, "1 2 0:3 / /somewhere/%zu rw - tmpfs none rw\n", length);
    strcpy(text + length, MOUNT_V1);
    CHECK(groups_of("9:memory:/\n", text) >= 0);
    memset(text, 'x', sizeof text - 1);
    groups_of("9:memory:/\n", text); /* longer than any kernel writes */
    snprintf(root, sizeof root, "%s/groups", directory);
    length = (size_t)snprintf(place, sizeof place, "%s", root);
    for (int i = 0; i <= DEEP; i++) {
        if (i) length += (size_t)snprintf(place + length, sizeof place - length, "/g");
        CHECK(mkdir(place, 0700) == 0);
        snprintf(text, sizeof text, "%s/memory.usage_in_bytes", place + strlen(directory) + 1);
        write_text(text, "4096\n");
    }
    snprintf(text, sizeof text, "9:memory:%s\n", place + strlen(root));
    char mounts[TEXT_BYTES];
    snprintf(mounts, sizeof mounts, "40 30 0:35 / %s rw - cgroup cgroup rw,memory\n40 30 0:35 /g %s/g rw - cgroup cgroup rw,memory\n", root, root);
    CHECK(groups_of(text, mounts) == VRANGE_CGROUPS);
    while (length >= strlen(root)) {
        snprintf(text, sizeof text, "%s/memory.usage_in_bytes", place);
        CHECK(unlink(text) == 0 && rmdir(place) == 0);
        length -= 2;
        place[length] = 0;
    }
}

/* A process may have no descriptor left when it looks for its limits. It looks again later. */
static void test_limits_without_descriptors(void) {
    static limits l;
    static vrange_cgroups found;
    struct rlimit none, before;
    const uint64_t later_ns = 2000000000;
    const int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(probe >= 0 && close(probe) == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = (rlim_t)probe;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    limits_find(&l, "/proc/self", &found);
    CHECK(!l.is_complete);
    CHECK(!limits_have_moved(&l, os_now_ns()) && limits_have_moved(&l, os_now_ns() + later_ns));
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    if (limits_find(&l, "/proc/self", &found) == 0) CHECK(!limits_have_moved(&l, os_now_ns() + later_ns));
    limits_forget(&l);
}

static void test_one_watcher(void) {
    static vrange_cgroups found;
    const vrange_pressure_settings settings = {2000000, 1000000, .7, .9, .05, .2};
    vrange_pressure_info info;
    vrange_pressure_stop();
    if (vrange_pressure_find("/proc/self", &found) < 0 || vrange_pressure_start(&settings) < 0) return;
    CHECK(vrange_pressure_start(&settings) == -EBUSY);
    vrange_pressure_read(&info);
    CHECK(info.running && info.level != VRANGE_PRESSURE_NONE);
    CHECK(vrange_pressure_wait(info.turn + 1, UINT64_MAX) != info.turn + 1);
    IN_CHILD(vrange_pressure_read(&info); CHECK(!info.running));
    vrange_pressure_stop();
}

int main(void) {
    make_directory();
    IN_CHILD(test_cgroup_texts());
    IN_CHILD(test_long_cgroup_texts());
    IN_CHILD(test_limits_without_descriptors());
    IN_CHILD(test_one_watcher());
    remove_directory();
    return 0;
}
