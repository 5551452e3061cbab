/* The memory limits of this process, and how much of each is used. (C has a limits.h of its own.)
 *
 * This is the one place that reads them. headroom.c, headroom_in_signal.c and nearest_limit.c decide what the
 * figures mean. A `limits` belongs to one caller at a time: limits_take() and limits_try() hand out those of
 * the process. Reading is async-signal-safe; finding is not. */
#ifndef VRANGE_MEMORY_LIMITS_H
#define VRANGE_MEMORY_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"
#include "os/os_kept_descriptors.h"
#include "vrange.h"

/* What a cgroup's usage consists of, with that of the cgroups below it. */
typedef struct {
    uint64_t inactive_file, active_file;
    uint64_t files, shared;
    uint64_t not_clean; /* dirty, or being written */
} memory_stat;

typedef struct {
    os_kept usage, stat, stalls, limits[VRANGE_CGROUP_LIMITS];
    bool whole_tree; /* `stat` reports the limits above all visible cgroups (v1) */
    /* As they were last read. `used_ns` is 0 before the first time. */
    uint64_t limit, limit_ns, above, above_ns;
    uint64_t used, used_ns;
    memory_stat content;
    uint64_t content_ns, content_used; /* when it was read, and usage then */
} limits_cgroup;

typedef struct {
    limits_cgroup cgroups[VRANGE_CGROUPS];
    size_t count;
    os_kept membership; /* the file that reports the cgroups of the process */
    uint64_t membership_hash, membership_ns;
    bool is_gone; /* a cgroup was removed: the process is in another one */
    bool is_complete; /* no cgroup was found that can't be read: there is no other limit */
    bool was_short;   /* of descriptors or of memory, when cgroups were looked for */
    uint64_t machine_bytes, machine_used, machine_ns;
    uint64_t commit_limit, committed; /* UINT64_MAX and 0 unless the machine promises only what it has */
    bool strict;
    char text[8192];
} limits;

/* Replaces what `l` knows by the cgroups that `proc_self` reports, and stores these in *found. Cgroups whose
 * figures can't be read are left out; found->cgroups has the reason. `l` must be zeroed before the first
 * time. Returns -errno if nothing is known about cgroups here; then `l` has none. */
int limits_find(limits *l, const char *proc_self, vrange_cgroups *found);
void limits_forget(limits *l);

/* Whether the cgroups must be found again: the process has moved to others, or not all could be opened. Checks
 * at most once a second. */
bool limits_have_moved(limits *l, uint64_t now_ns);

/* Read a figure again if it is at least `age_ns` old. Return 0 or -errno; on an error the figure stays. A
 * limit is UINT64_MAX if there is none. Usage that fails with -ENODEV is of a removed cgroup. */
int limits_read_limit(limits *l, limits_cgroup *c, uint64_t now_ns, uint64_t age_ns);
int limits_read_usage(limits *l, limits_cgroup *c, uint64_t now_ns);
int limits_read_content(limits *l, limits_cgroup *c, uint64_t now_ns, uint64_t age_ns);
/* `machine_used` leaves out what could be freed at once. */
int limits_read_machine(limits *l, uint64_t now_ns, uint64_t age_ns);

/* What RLIMIT_AS and RLIMIT_DATA limit, with UINT64_MAX for no limit. */
typedef struct {
    uint64_t address_space, address_space_used, data, data_used;
} process_limits;

/* Usage is read only if there is a limit. */
int limits_read_process(process_limits *out);

/* The limit that the program has set for its resident set; false if it has set none. Whatever counts the
 * resident set sees offered pages in it, and no kernel reclaims them: they have to be discarded. If the
 * judge spares offered pages, `used` is without them, and offering is enough. */
uint64_t limits_set_most(void); /* what vrange_set_limit was given; 0 if offered bytes count */
static inline bool limits_set_spares_offered(void) { return limits_set_most() != 0; }
uint64_t limits_set_bytes(void); /* 0 if it has set none */
static inline bool limits_has_set(void) { return limits_set_bytes() != 0; }
bool limits_read_set(uint64_t *limit, uint64_t *used);

/* ---- those of this process ---------------------------------------------------------------------- */

/* Wait for the other callers; NULL if another caller has them now. Call limits_give when done. A signal
 * handler must not wait, as it may have interrupted the caller that has them. */
limits *limits_take(void);
limits *limits_try(void);
void limits_give(void);

/* Takes them, after it has found the cgroups at the first call, and again when the process has moved. Also
 * returns the time. Inside the gate; not async-signal-safe. */
limits *limits_take_followed(uint64_t *now);
/* Finds them in the same way and does not take them. Inside the gate, and outside. */
void limits_follow(void);
void limits_follow_outside(void) EXPORTED(limits_follow_outside);

void limits_after_fork(void);

/* In a child that was made without fork handlers: what another thread was reading is read again. */
void limits_renew_locks(void);

#endif
