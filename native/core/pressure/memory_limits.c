/* Reading the memory limits of this process.
 *
 * A process is ended by a limit of its cgroup, of a cgroup around that, or of the machine; RLIMIT_AS and
 * RLIMIT_DATA make its allocations fail. Limits may change at any moment, so they are read again now and
 * then. Files stay open, and each read checks that the descriptor is still ours (os_kept_descriptors.h). */
#define _GNU_SOURCE
#include "pressure/memory_limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/amounts.h"
#include "base/gate.h"
#include "base/stat_file.h"
#include "counters/stats.h"
#include "os/hash.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "pressure/cgroups.h"

#define MEMBERSHIP_NS 1000000000ull
#define GONE_NS 100000000ull      /* a removed cgroup: how often to look where the process is now */
#define ABOVE_NS 1000000000ull    /* in v1 the file that reports limits above is the slowest of all */
#define NO_LIMIT (1ull << 62)     /* v1 writes "none" as the largest signed long, rounded down to a page */
#define PROC_SELF "/proc/self"

/* Nothing is known: every limit that is found counts. */
#define UNKNOWN {.machine_bytes = UINT64_MAX, .commit_limit = UINT64_MAX}

/* ---- finding ----------------------------------------------------------------------------------- */

/* A file that does not exist is not opened again: it stays missing. */
static int keep(const vrange_cgroups *found, const vrange_cgroup *cgroup, const char *name, os_kept *file) {
    char path[VRANGE_PATH_BYTES];
    *file = (os_kept){.path = NULL};
    if (!cgroup_path(found, cgroup, name, path, sizeof path)) return 0;
    const int result = os_keep(path, file);
    if (result != -ENOENT) return result;
    os_forget(file);
    return 0;
}

static void forget_cgroup(limits_cgroup *c) {
    os_forget(&c->usage);
    os_forget(&c->stat);
    os_forget(&c->stalls);
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) os_forget(&c->limits[i]);
}

/* Notes the first problem: a limit in a cgroup that can't be read would not be noticed. */
static void note_problem(vrange_cgroup *cgroup, const char *name, int result) {
    if (result >= 0 || cgroup->error) return;
    cgroup->error = -result;
    cgroup->failed = name;
}

static void open_cgroup(limits *l, const vrange_cgroups *found, vrange_cgroup *cgroup) {
    const cgroup_files *names = cgroup_files_of(found->hierarchies[cgroup->hierarchy].version);
    limits_cgroup *c = &l->cgroups[l->count];
    const uint64_t now = os_now_ns();
    *c = (limits_cgroup){.whole_tree = cgroup->whole_tree, .limit = UINT64_MAX, .above = UINT64_MAX};
    note_problem(cgroup, names->usage, keep(found, cgroup, names->usage, &c->usage));
    if (!cgroup->error) note_problem(cgroup, names->usage, limits_read_usage(l, c, now));
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++)
        note_problem(cgroup, names->limits[i], keep(found, cgroup, names->limits[i], &c->limits[i]));
    keep(found, cgroup, names->stat, &c->stat); /* without these two the figures are less exact */
    keep(found, cgroup, names->stalls, &c->stalls);
    if (!cgroup->error) note_problem(cgroup, names->limits[0], limits_read_limit(l, c, now, 0));
    cgroup->limit = c->limit;
    cgroup->usage = c->used;
    if (cgroup->error) forget_cgroup(c);
    else l->count++;
}

static int read_membership(limits *l, uint64_t *hash) {
    const int result = os_kept_text(&l->membership, l->text, sizeof l->text);
    if (result >= 0) *hash = hash_of(l->text);
    return result < 0 ? result : 0;
}

/* Other errors stay: a sandbox or the owner of the files refuses them. */
static bool is_short(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM; }

int limits_find(limits *l, const char *proc_self, vrange_cgroups *found) {
    char path[VRANGE_PATH_BYTES];
    limits_forget(l);
    l->strict = os_commits_strictly();
    limits_read_machine(l, os_now_ns(), 0);
    if (snprintf(path, sizeof path, "%s/cgroup", proc_self) < (int)sizeof path)
        os_keep(path, &l->membership);
    /* Read first: a move that happens meanwhile is found at the next check. */
    read_membership(l, &l->membership_hash);
    l->membership_ns = os_now_ns();
    const int result = cgroups_find(proc_self, found);
    l->is_complete = result == 0 && found->count > 0;
    l->was_short = is_short(-result);
    for (size_t i = 0; result == 0 && i < found->count; i++) {
        open_cgroup(l, found, &found->cgroups[i]);
        /* Without the file there is no limit either: v2's root, or a controller that is not enabled. */
        if (found->cgroups[i].error && found->cgroups[i].error != ENOENT) l->is_complete = false;
        if (is_short(found->cgroups[i].error)) l->was_short = true;
    }
    return result;
}

void limits_forget(limits *l) {
    for (size_t i = 0; i < l->count; i++) forget_cgroup(&l->cgroups[i]);
    os_forget(&l->membership);
    *l = (limits)UNKNOWN;
}

bool limits_have_moved(limits *l, uint64_t now) {
    uint64_t membership;
    if (now - l->membership_ns < (l->is_gone ? GONE_NS : MEMBERSHIP_NS)) return false;
    l->membership_ns = now;
    if (l->is_gone || l->was_short) return true;
    return read_membership(l, &membership) == 0 && membership != l->membership_hash;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static int read_number(limits *l, os_kept *file, uint64_t *value) {
    const int length = os_kept_text(file, l->text, sizeof l->text);
    if (length < 0) return length;
    return os_number_in(l->text, value);
}

static void read_above(limits *l, limits_cgroup *c, uint64_t now) {
    if (!c->whole_tree || (c->above_ns && now - c->above_ns < ABOVE_NS)) return;
    uint64_t above;
    if (os_kept_text(&c->stat, l->text, sizeof l->text) < 0) return;
    c->above_ns = now;
    c->above = UINT64_MAX;
    if (line_number(l->text, "hierarchical_memory_limit", &above) && above < NO_LIMIT) c->above = above;
}

int limits_read_limit(limits *l, limits_cgroup *c, uint64_t now, uint64_t age) {
    if (c->limit_ns && now - c->limit_ns < age) return 0;
    read_above(l, c, now);
    uint64_t least = c->above;
    for (size_t i = 0; i < VRANGE_CGROUP_LIMITS; i++) {
        uint64_t one;
        if (!os_is_kept(&c->limits[i])) continue;
        const int result = read_number(l, &c->limits[i], &one);
        if (result == -EINVAL) continue; /* "max" */
        if (result < 0) return result;
        if (one < least && one < NO_LIMIT) least = one;
    }
    c->limit = least;
    c->limit_ns = now;
    return 0;
}

int limits_read_usage(limits *l, limits_cgroup *c, uint64_t now) {
    uint64_t used;
    const int result = read_number(l, &c->usage, &used);
    if (result == -ENODEV) l->is_gone = true;
    if (result < 0) return result;
    c->used = used;
    c->used_ns = now;
    return 0;
}

/* v1 reports the sum with the cgroups below under a name of its own. */
static uint64_t sum_of(const char *text, const char *name) {
    char total[32] = "total_";
    uint64_t bytes = 0;
    strcat(total, name);
    if (!line_number(text, total, &bytes)) line_number(text, name, &bytes);
    return bytes;
}

int limits_read_content(limits *l, limits_cgroup *c, uint64_t now, uint64_t age) {
    if (c->content_ns && now - c->content_ns < age) return 0;
    const int result = os_kept_text(&c->stat, l->text, sizeof l->text);
    if (result < 0) return result;
    const char *text = l->text;
    c->content = (memory_stat){.inactive_file = sum_of(text, "inactive_file"),
                               .active_file = sum_of(text, "active_file"),
                               .files = sum_of(text, "cache") + sum_of(text, "file"),
                               .shared = sum_of(text, "shmem"),
                               .not_clean = sum_of(text, "dirty") + sum_of(text, "file_dirty") +
                                            sum_of(text, "writeback") + sum_of(text, "file_writeback")};
    c->content_ns = now;
    c->content_used = c->used;
    return 0;
}

int limits_read_machine(limits *l, uint64_t now, uint64_t age) {
    uint64_t used, total;
    if (l->machine_ns && now - l->machine_ns < age) return 0;
    const int result = os_machine_usage(&used, &total);
    if (result < 0) return result;
    l->machine_ns = now;
    l->machine_bytes = total;
    l->machine_used = used;
    if (l->strict && os_commit_usage(&used, &total) == 0) {
        l->commit_limit = total;
        l->committed = used;
    }
    return 0;
}

int limits_read_process(process_limits *out) {
    *out = (process_limits){.address_space = os_address_space_limit(), .data = os_data_limit()};
    if (out->address_space == UINT64_MAX && out->data == UINT64_MAX) return 0;
    return os_address_space(&out->address_space_used, &out->data_used);
}

static struct {
    _Atomic uint64_t bytes; /* 0: none */
    _Atomic uint64_t most_bytes; /* 0: offered bytes count */
} set;

uint64_t limits_set_bytes(void) { return atomic_load_explicit(&set.bytes, memory_order_relaxed); }

uint64_t limits_set_most(void) { return atomic_load(&set.most_bytes); }

bool limits_read_set(uint64_t *limit, uint64_t *used) {
    *limit = atomic_load(&set.bytes);
    if (*limit == 0 || os_resident_set(used) != 0) return false;
    if (limits_set_spares_offered()) *used = above(*used, atomic_load(&stats_offered_bytes));
    return true;
}

/* ---- those of this process --------------------------------------------------------------------- */

enum {
    FREE,
    TAKEN,
    AWAITED,
};

#define AWAIT_NS 10000000u

static struct {
    _Atomic uint32_t hold; /* guards `now`; not a mutex, as a signal handler asks as well */
    _Atomic bool is_known;
    limits now;
    pthread_mutex_t finding; /* inside the gate */
} own = {.now = UNKNOWN, .finding = PTHREAD_MUTEX_INITIALIZER};

limits *limits_try(void) {
    uint32_t hold = FREE;
    return atomic_compare_exchange_strong(&own.hold, &hold, TAKEN) ? &own.now : NULL;
}

/* The caretaker has a higher priority than the threads of the program. If it spun here, the thread that it has
 * just preempted could not go on. */
limits *limits_take(void) {
    if (limits_try()) return &own.now;
    while (atomic_exchange(&own.hold, AWAITED) != FREE) os_wait(&own.hold, AWAITED, AWAIT_NS);
    return &own.now;
}

void limits_give(void) {
    if (atomic_exchange(&own.hold, FREE) == AWAITED) os_wake(&own.hold);
}

static bool must_find(limits *l, uint64_t now) {
    return !atomic_load(&own.is_known) || limits_have_moved(l, now);
}

/* Files are opened outside the part in which a signal handler would find the limits taken. */
static void find_again(void) {
    limits *fresh = calloc(1, sizeof *fresh);
    vrange_cgroups *found = malloc(sizeof *found);
    if (fresh && found && (limits_find(fresh, PROC_SELF, found) == 0 || !atomic_load(&own.is_known))) {
        limits *l = limits_take();
        const limits before = *l;
        *l = *fresh;
        *fresh = before;
        atomic_store(&own.is_known, true);
        limits_give();
    }
    if (fresh) limits_forget(fresh);
    free(fresh);
    free(found);
}

limits *limits_take_followed(uint64_t *now) {
    limits *l = limits_take();
    *now = os_now_ns();
    if (!must_find(l, *now)) return l;
    limits_give();
    pthread_mutex_lock(&own.finding);
    find_again();
    pthread_mutex_unlock(&own.finding);
    l = limits_take();
    *now = os_now_ns();
    return l;
}

void limits_follow(void) {
    uint64_t now;
    limits_take_followed(&now);
    limits_give();
}

void limits_follow_outside(void) {
    gate_enter();
    limits_follow();
    gate_leave();
}

/* The thread that was reading exists only in the parent, and so does the process whose cgroups that file
 * reports. */
void limits_renew_locks(void) {
    (void)os_lock_renew(&own.finding);
    if (atomic_load(&own.hold) == FREE) return;
    own.now = (limits)UNKNOWN; /* half changed: its descriptors may not be ours to close */
    atomic_store(&own.is_known, false);
    atomic_store(&own.hold, FREE);
}

void limits_after_fork(void) {
    os_let_go(&own.now.membership.held);
    atomic_store(&own.hold, FREE);
}

/* ---- for users --------------------------------------------------------------------------------- */

int vrange_cgroups_read(const char *proc_self, vrange_cgroups *out) {
    limits *l = calloc(1, sizeof *l);
    if (!l) return -ENOMEM;
    const int result = limits_find(l, proc_self, out);
    limits_forget(l);
    free(l);
    return result;
}

void vrange_set_limit(uint64_t bytes, uint64_t most_bytes) {
    /* In this order a reader can only find a limit that counts too much. */
    atomic_store(&set.most_bytes, 0);
    atomic_store(&set.bytes, bytes);
    atomic_store(&set.most_bytes, bytes ? most_bytes : 0);
}

static void consider(vrange_limit *tightest, vrange_limit other) {
    if (other.bytes < tightest->bytes) *tightest = other;
}

void vrange_limit_of(const vrange_cgroups *cgroups, vrange_limit *out) {
    uint64_t used = 0, total = UINT64_MAX;
    process_limits process;
    os_machine_usage(&used, &total);
    *out = (vrange_limit){.source = VRANGE_LIMIT_MACHINE, .bytes = total, .usage = used, .cgroup = -1};
    for (size_t i = 0; i < cgroups->count; i++) {
        const vrange_cgroup *c = &cgroups->cgroups[i];
        const int source = cgroups->hierarchies[c->hierarchy].version == 1 ? VRANGE_LIMIT_CGROUP_V1
                                                                           : VRANGE_LIMIT_CGROUP_V2;
        /* Of two equal limits the outer one is reached first: its usage includes the inner one's. */
        const bool is_outer = c->limit == out->bytes && source == out->source;
        const vrange_limit here = {.source = source, .bytes = c->limit, .usage = c->usage, .cgroup = (int)i};
        if (is_outer) *out = here;
        else consider(out, here);
    }
    limits_read_process(&process);
    consider(out, (vrange_limit){.source = VRANGE_LIMIT_ADDRESS_SPACE,
                                 .bytes = process.address_space,
                                 .usage = process.address_space_used,
                                 .cgroup = -1});
    consider(out, (vrange_limit){.source = VRANGE_LIMIT_DATA,
                                 .bytes = process.data,
                                 .usage = process.data_used,
                                 .cgroup = -1});
    if (limits_read_set(&total, &used))
        consider(out, (vrange_limit){
                          .source = VRANGE_LIMIT_SET, .bytes = total, .usage = used, .cgroup = -1});
}
