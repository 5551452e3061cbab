/* The names of what vrange.h numbers: in metrics, in arguments and in what Python returns they are read from
 * here. Each is spelled once: those of the rungs in base/rung.c, which needs them below this floor, and all
 * others here. The causes of eviction have no number in vrange.h; python/cache/listener.c spells them. */
#include <stddef.h>

#include "base/rung.h"
#include "vrange.h"

typedef struct {
    int count;
    const char *const *names;
} list;

#define LIST(names) {(int)(sizeof(names) / sizeof *(names)), names}

static const char *const kinds[VRANGE_KINDS] = {[VRANGE_KIND_ARENA] = "arena",
                                                [VRANGE_KIND_CACHE] = "cache",
                                                [VRANGE_KIND_ARRAY] = "array",
                                                [VRANGE_KIND_STACK] = "stack",
                                                [VRANGE_KIND_HEAP] = "heap"};

static const char *const requests[VRANGE_REQUESTS] = {[VRANGE_REQUEST_HOT] = "hot",
                                                      [VRANGE_REQUEST_RESIDENT] = "resident",
                                                      [VRANGE_REQUEST_PURGED] = "purged",
                                                      [VRANGE_REQUEST_MISS] = "miss",
                                                      [VRANGE_REQUEST_WAITED] = "waited",
                                                      [VRANGE_REQUEST_PEER] = "peer"};

static const char *const latencies[VRANGE_LATENCIES] = {
    [VRANGE_FREE_RELEASED] = "time_to_free released",
    [VRANGE_FREE_OFFERED] = "time_to_free offered",
    [VRANGE_REALLOCATE_RESIDENT] = "time_to_reallocate resident",
    [VRANGE_REALLOCATE_PURGED] = "time_to_reallocate purged"};

static const char *const levels[VRANGE_PRESSURE_LEVELS] = {[VRANGE_PRESSURE_NONE] = "",
                                                           [VRANGE_PRESSURE_NORMAL] = "normal",
                                                           [VRANGE_PRESSURE_ELEVATED] = "elevated",
                                                           [VRANGE_PRESSURE_CRITICAL] = "critical"};

static const char *const actions[VRANGE_PRESSURE_ACTIONS] = {[VRANGE_PRESSURE_OFFER_HOT] = "offer_hot",
                                                             [VRANGE_PRESSURE_GROW_HOT] = "grow_hot",
                                                             [VRANGE_PRESSURE_TRIM_STACKS] = "trim_stacks",
                                                             [VRANGE_PRESSURE_TRIM_HEAP] = "trim_heap",
                                                             [VRANGE_PRESSURE_CALLBACK] = "callback"};

static const char *const outcomes[VRANGE_PRESSURE_OUTCOMES] = {[VRANGE_PRESSURE_DONE] = "done",
                                                               [VRANGE_PRESSURE_FAILED] = "failed",
                                                               [VRANGE_PRESSURE_SKIPPED] = "skipped"};

static const char *const releases[] = {[VRANGE_RELEASE_VOLATILE] = "volatile",
                                       [VRANGE_RELEASE_NOW] = "now",
                                       [VRANGE_RELEASE_KEEP] = "keep"};

static const char *const limits[] = {[VRANGE_LIMIT_MACHINE] = "machine",
                                     [VRANGE_LIMIT_CGROUP_V1] = "cgroup v1",
                                     [VRANGE_LIMIT_CGROUP_V2] = "cgroup v2",
                                     [VRANGE_LIMIT_ADDRESS_SPACE] = "RLIMIT_AS",
                                     [VRANGE_LIMIT_DATA] = "RLIMIT_DATA",
                                     [VRANGE_LIMIT_SET] = "set_limit"};

static const list lists[] = {[VRANGE_NAMES_RUNGS] = {VRANGE_RUNG_REFAULT + 1, rung_names},
                             [VRANGE_NAMES_KINDS] = LIST(kinds),
                             [VRANGE_NAMES_REQUESTS] = LIST(requests),
                             [VRANGE_NAMES_LATENCIES] = LIST(latencies),
                             [VRANGE_NAMES_PRESSURE_LEVELS] = LIST(levels),
                             [VRANGE_NAMES_PRESSURE_ACTIONS] = LIST(actions),
                             [VRANGE_NAMES_PRESSURE_OUTCOMES] = LIST(outcomes),
                             [VRANGE_NAMES_RELEASES] = LIST(releases),
                             [VRANGE_NAMES_LIMITS] = LIST(limits)};

const char *vrange_name(int which, int number) {
    if (which < 0 || which >= (int)(sizeof lists / sizeof *lists)) return NULL;
    return number >= 0 && number < lists[which].count ? lists[which].names[number] : NULL;
}
