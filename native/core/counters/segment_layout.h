/* The stats segment: the counts of one process, laid out so that another process can read them.
 *
 * It is a file that this process maps and that any process of the same user may map too, like the JVM's
 * hsperfdata. A reader needs neither this process's cooperation nor its GIL. Everything is a little-endian
 * word of its natural size. Offsets count from the file's beginning and are stored in the header, so that
 * a reader of this version can read tables that have grown.
 *
 *     0        segment_header
 *     4096     accounts: `accounts` slots of a page each, segment_slot below;
 *              the first `kinds` are the "other" slots, one a kind, for what finds no slot of its own
 *     ...      latencies: `shards` shards of `kinds` × `latencies` histograms, each the sum in ns
 *              and `buckets` counts
 *     ...      overflow: `overflows` slots, segment_overflow below, for accounts that found no slot of
 *              a page. A reader adds each to the "other" slot of its kind.
 *
 * Numbers change while they are read. Each single counter only grows. A count is the sum of its buckets,
 * so that the two agree. */
#ifndef VRANGE_SEGMENT_LAYOUT_H
#define VRANGE_SEGMENT_LAYOUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vrange.h"

#define SEGMENT_MAGIC "VRANGE\r\n" /* a copy with changed line ends is refused, too */
#define SEGMENT_PAGE 4096u
#define SEGMENT_ACCOUNTS (VRANGE_KINDS + SEGMENT_NAMES)
#define SEGMENT_SHARDS 9 /* one of them is shared */
#define SEGMENT_OVERFLOW_BYTES 256u /* whole cache lines, and no slot lies in two pages */

/* Python's reader gets all that is between these marks, without _Atomic: build.py. */
/* cffi: begin */

/* 1 had no pressure, 2 refusals, 3 object bytes, 4 waits, 5 overflow slots, 6 peers' requests */
#define SEGMENT_VERSION 7

#define SEGMENT_NAMES 256      /* that a process, or a service, counts apart */
#define SEGMENT_OVERFLOWS 8192 /* accounts beyond these, each with figures for its own owner */

#define SEGMENT_READY 1u /* a reader before that would see a half-made segment */
#define SEGMENT_KEPT 2u  /* a reader sums this service: the file outlives the process until it is folded */

typedef struct {
    _Atomic uint64_t sum_ns;
    _Atomic uint64_t buckets[VRANGE_BUCKETS];
} segment_histogram;

typedef struct {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t bytes;         /* of the whole file */
    uint32_t pid, uid;
    /* from /proc/PID/stat: with the pid, it distinguishes the process from a later one */
    uint64_t start_ticks;
    uint64_t stack_start;   /* from the same file; it changes at an exec */
    uint64_t pid_namespace; /* in which `pid` is valid */
    uint64_t group;         /* the process group when the segment was made */
    _Atomic uint32_t flags;
    _Atomic uint32_t rung;  /* 0: not decided yet */
    uint32_t accounts_at, account_bytes, accounts, regenerate_at; /* the last one is relative to an account */
    uint32_t latencies_at, shard_bytes, shards, kinds, latencies, buckets;
    _Atomic uint32_t shards_used, accounts_used; /* the rest are all zeros */
    char service[VRANGE_NAME_BYTES]; /* VRANGE_SERVICE; if empty, the process group is the service */
    char name[VRANGE_NAME_BYTES];    /* the command */
    _Atomic uint64_t stack_returned_bytes, trims;
    _Atomic uint64_t stack_high_water_bytes; /* of the deep stack that came nearest to its end … */
    _Atomic uint64_t stack_limit_bytes;      /* … and the size of that stack */
    /* Of the pressure watcher: the level (VRANGE_PRESSURE_NONE if no watcher runs), how often each level
     * was entered, and its actions by action and outcome. */
    _Atomic uint64_t pressure_level, pressure_changes[VRANGE_PRESSURE_LEVELS];
    _Atomic uint64_t pressure_actions[VRANGE_PRESSURE_ACTIONS][VRANGE_PRESSURE_OUTCOMES];
    _Atomic uint64_t pressure_returned_bytes[VRANGE_PRESSURE_ACTIONS];
    _Atomic uint64_t turn; /* odd while counts move between accounts: read again */
    uint32_t overflow_at, overflow_bytes, overflows;
    _Atomic uint32_t overflow_used;
} segment_header;

/* What every slot begins with. */
struct vrange_account {
    _Atomic uint32_t state; /* VRANGE_ACCOUNT_ */
    uint32_t kind;
    char name[VRANGE_NAME_BYTES];
    /* Gauges: the present values. The child of a fork begins with them. */
    _Atomic uint64_t ranges, reserved_bytes, range_bytes, idle_bytes, offered_bytes, purged_bytes;
    _Atomic uint64_t hot_bytes, object_bytes; /* side by side: vrange_account_hot */
    /* Counters: totals since the slot got its name. */
    _Atomic uint64_t purged_total, shed_total, refaults, requests[VRANGE_REQUESTS];
    _Atomic uint64_t refused;
};

/* A slot under a name. vrange_account_read_copy makes figures of a copy. */
typedef struct {
    struct vrange_account account;
    segment_histogram regenerate;
} segment_slot;

/* A slot without a histogram: its kind's "other" slot has that of all. The two counts are for the owner. */
typedef struct {
    struct vrange_account account;
    _Atomic uint64_t regenerated, regenerate_ns;
} segment_overflow;

/* cffi: end */

#endif
