/* Which limit around the process is nearest to being reached, for the pressure watcher. */
#ifndef VRANGE_NEAREST_LIMIT_H
#define VRANGE_NEAREST_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "pressure/memory_limits.h"
#include "vrange.h"

typedef struct {
    limits limits;
    struct {
        uint64_t usage_then; /* when its content was last read */
        unsigned looks;      /* since then */
    } looked[VRANGE_CGROUPS];
} watched_limits;

typedef struct {
    int place; /* the index of a cgroup, VRANGE_PRESSURE_MACHINE or VRANGE_PRESSURE_SET */
    uint64_t usage, limit;
    uint64_t used; /* of the usage, what can't be taken at once */
} fullness;

static inline double fullness_share(const fullness *f) { return (double)f->used / (double)f->limit; }

typedef struct {
    unsigned failed;  /* how many cgroups could not be read */
    bool was_removed; /* one of them does not exist any more */
} read_failures;

/* Finds the fullest of all places; false if none could be read. A limit is read again after `limit_age_ns`.
 * Below the share `floor` the figure need not be exact. */
bool nearest_limit(watched_limits *w, uint64_t limit_age_ns, double floor, fullness *fullest,
                   read_failures *failures);

#endif
