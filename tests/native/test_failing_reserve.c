/* The reserve, limits and the watcher while calls fail; see failing_calls.h. */
#include "failing_calls.h"

#include "base/gate.h"
#include "os/os.h"
#include "pressure/alarm.h"
#include "pressure/headroom.h"
#include "pressure/memory_limits.h"

/* ---- limits that the process sets --------------------------------------------------------------- */

static void reserve(void) {
    if (!did(vrange_reserve_start(256 << 10, 1000000, 1))) return;
    rest(8);
    for (uint64_t i = 0; i < RANGES; i++) pin_and_check(handles[i], BYTES, i);
    if (did(vrange_room_take(MIB))) vrange_room_give(MIB);
    rest(4);
    vrange_reserve_stop();
}

static void set_limits(void) {
    static vrange_cgroups groups;
    vrange_limit limit;
    vrange_set_limit(UINT64_C(8) << 30, 0);
    if (did(vrange_cgroups_read("/proc/self", &groups))) vrange_limit_of(&groups, &limit);
    if (did(vrange_room_take(MIB))) vrange_room_give(MIB);
    rest(3);
    vrange_set_limit(0, 0);
    vrange_address_space space;
    vrange_address_space_read(&space);
}

static void near_limit(void) {
    uint64_t bytes = 0;
    if ((bytes = vrange_resident_bytes()) == 0) return;
    vrange_set_limit(bytes + 8 * MIB, 0);
    uint64_t some[24];
    size_t count = 0;
    for (; count < 24 && allocated(arena, MIB / 2, count, &some[count]); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    rest(6);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], MIB / 2, i);
    if (did(vrange_room_take(6 * MIB))) vrange_room_give(6 * MIB);
    vrange_free_all(some, count);
    vrange_set_limit(0, 0);
}

/* A limit whose judge does not count what is offered. */
static void spared_limit(void) {
    const uint64_t bytes = vrange_resident_bytes();
    if (bytes == 0) return;
    vrange_set_limit(bytes + 24 * MIB, bytes + 40 * MIB);
    if (!did(vrange_reserve_start(MIB, 1000000, 0))) return;
    uint64_t some[12];
    size_t count = 0;
    for (; count < 12 && allocated(arena, MIB, count, &some[count]); count++) {
        CHECK(vrange_set_owner(some[count], 100) == VRANGE_OK);
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    }
    if (did(vrange_room_take(20 * MIB))) vrange_room_give(20 * MIB);
    rest(5);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], MIB, i);
    vrange_free_all(some, count);
    vrange_set_limit(0, 0);
    vrange_reserve_stop();
}

static void pressure(void) {
    static vrange_cgroups found;
    const vrange_pressure_settings settings = {1000000, 1000000, .7, .9, .05, .2};
    if (!did(vrange_pressure_find("/proc/self", &found)) || !did(vrange_pressure_start(&settings))) return;
    vrange_pressure_info info;
    vrange_pressure_wait(0, 3000000);
    vrange_pressure_read(&info);
    vrange_pressure_poke();
    vrange_pressure_stop();
}

/* ---- the limit of a cgroup ---------------------------------------------------------------------- */

#define MEMORY "/sys/fs/cgroup/memory" /* v1 */
#define LIMIT_BYTES (512 * MIB)

static char group[80];

static bool write_number(const char *in, const char *file, size_t number) {
    char where[160], text[32];
    snprintf(where, sizeof where, "%s/%s", in, file);
    const int opened = open(where, O_WRONLY | O_CLOEXEC);
    const int length = snprintf(text, sizeof text, "%zu", number);
    const bool is_written = opened >= 0 && write(opened, text, (size_t)length) == length;
    if (opened >= 0) close(opened);
    return is_written;
}

static bool set_group_limit(const char *of, size_t bytes) { return write_number(of, "memory.limit_in_bytes", bytes); }
static bool put_in(const char *where) { return write_number(where, "cgroup.procs", (size_t)getpid()); }

/* Each trial is in it from its beginning to its end. */
static bool join_group(void) {
    return set_group_limit(group, LIMIT_BYTES) && put_in(group);
}

static alarm_kind set_alarm(uint64_t enough) {
    gate_enter();
    const alarm_kind kind = alarm_set(enough);
    gate_leave();
    return kind;
}

/* The kernel reports a changed limit, and usage above a threshold. */
static void alarms(void) {
    uint64_t left;
    limits_follow_outside();
    for (int i = 0; i < 5; i++, rest(1)) set_alarm(LIMIT_BYTES / 4);
    set_group_limit(group, LIMIT_BYTES - 64 * MIB);
    rest(2);
    alarm_has_come();
    for (int i = 0; i < 3; i++, rest(1)) set_alarm(LIMIT_BYTES / 4);
    /* Where the group's files could not be opened, no limit is known, and nobody relies on an alarm. */
    const bool is_known = headroom_below_limits(LIMIT_BYTES, &left);
    for (int i = 0; i < 4; i++, rest(1)) /* usage is above the threshold */
        CHECK(set_alarm(LIMIT_BYTES) != ALARM_EARLY || !is_known);
    struct rlimit all, some;
    if (getrlimit(RLIMIT_AS, &all) == 0) {
        some = all;
        some.rlim_cur = (rlim_t)1 << 40;
        setrlimit(RLIMIT_AS, &some); /* its thread would take of what is scarce */
        if (os_address_space_limit() != UINT64_MAX) CHECK(set_alarm(LIMIT_BYTES / 4) == ALARM_NONE);
        setrlimit(RLIMIT_AS, &all);
    }
    alarm_end();
    alarm_end();
}

/* The process is moved, and the group in which it was is removed. */
static void removed_group(void) {
    char below[120];
    uint64_t left;
    snprintf(below, sizeof below, "%s/%d", group, getpid());
    atomic_store(&armed, false); /* what the test itself does works */
    const bool is_in = mkdir(below, 0700) == 0 && set_group_limit(below, LIMIT_BYTES / 2) && put_in(below);
    atomic_store(&armed, true);
    limits_follow_outside();
    static vrange_cgroups found;
    const vrange_pressure_settings settings = {1000000, 1000000, .7, .9, .05, .2};
    if (did(vrange_pressure_find("/proc/self", &found))) did(vrange_pressure_start(&settings));
    for (int i = 0; i < 3; i++, rest(1)) set_alarm(LIMIT_BYTES / 4);
    atomic_store(&armed, false);
    CHECK(is_in && put_in(group));
    while (rmdir(below) < 0 && errno == EBUSY) rest(1);
    atomic_store(&armed, true);
    vrange_pressure_poke();
    headroom_is_below(LIMIT_BYTES);
    headroom_below_limits(LIMIT_BYTES, &left);
    set_alarm(LIMIT_BYTES / 4);
    rest(110);
    vrange_pressure_stop();
    headroom_below_limits(LIMIT_BYTES, &left);
    set_alarm(LIMIT_BYTES / 4);
    limits_take();
    headroom_is_below(LIMIT_BYTES); /* what another thread reads now is not waited for */
    limits_give();
    alarm_end();
}

static void below_group_limit(void) {
    uint64_t some[24], left, limit;
    size_t count = 0;
    for (uint64_t enough = 0; enough <= LIMIT_BYTES; enough += LIMIT_BYTES / 2) {
        headroom_below_limits(enough, &left);
        headroom_with_files(enough, &left);
        headroom_is_below(enough);
        headroom_below_set(&limit);
        headroom_of_machine(0);
        headroom_found_anew();
    }
    /* So much is wanted in reserve that it is never enough. */
    if (!did(vrange_reserve_start(LIMIT_BYTES / 4, 1000000, 0))) return;
    for (; count < 24 && allocated(arena, MIB / 2, count, &some[count]); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    rest(6);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], MIB / 2, i);
    if (did(vrange_room_take(LIMIT_BYTES / 2))) vrange_room_give(LIMIT_BYTES / 2);
    if (did(vrange_room_take(LIMIT_BYTES))) vrange_room_give(LIMIT_BYTES);
    vrange_free_all(some, count);
    vrange_reserve_stop();
}

static void pressure_in_group(void) {
    static vrange_cgroups found;
    const vrange_pressure_settings settings = {1000000, 1000000, .001, .9, .0005, .2};
    if (!did(vrange_pressure_find("/proc/self", &found)) || !did(vrange_pressure_start(&settings))) return;
    vrange_pressure_info info;
    vrange_pressure_wait(0, 3000000);
    set_group_limit(group, LIMIT_BYTES - 64 * MIB);
    for (uint64_t most = 0; most <= LIMIT_BYTES; most += LIMIT_BYTES) { /* the process's own limit is nearer */
        vrange_set_limit(vrange_resident_bytes() + MIB, most);
        vrange_pressure_poke();
        rest(3);
    }
    vrange_set_limit(0, 0);
    vrange_pressure_read(&info);
    vrange_pressure_stop();
}

static const operation operations[] = {
    {"reserve", reserve},
    {"limits", set_limits},
    {"near limit", near_limit},
    {"pressure", pressure},
    {"removed group", removed_group, .is_first = true, .prepare = join_group},
    {"alarms", alarms, .is_first = true, .prepare = join_group},
    {"below the limit of a group", below_group_limit, .prepare = join_group},
    {"pressure in a group", pressure_in_group, .is_first = true, .prepare = join_group},
    {"spared limit", spared_limit},
};

int main(int count, char **arguments) {
    snprintf(group, sizeof group, MEMORY "/vrange-test-%d", getpid());
    mkdir(group, 0700); /* where it can't, trials of a group are left out */
    const int result = try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
    rmdir(group);
    return result;
}
