/* Where this process is among the memory cgroups, and the names of their files. */
#ifndef VRANGE_CGROUPS_H
#define VRANGE_CGROUPS_H

#include <stdbool.h>
#include <stddef.h>

#include "vrange.h"

#define CGROUP_HIERARCHIES 2

/* The names of one version's files; NULL for a file that the version does not have. */
typedef struct {
    const char *usage, *stat, *stalls, *limits[VRANGE_CGROUP_LIMITS];
} cgroup_files;

const cgroup_files *cgroup_files_of(int version);

/* Finds the cgroups whose limits apply to the process, as the files `cgroup` and `mountinfo` in `proc_self`
 * report them. The innermost cgroup of each hierarchy comes first. Fills the places only: the figures are
 * left zero. Returns -errno if the files can't be read. Not async-signal-safe. */
int cgroups_find(const char *proc_self, vrange_cgroups *out);

/* Writes the path of a file of a cgroup. False if it does not fit, or `name` is NULL. */
bool cgroup_path(const vrange_cgroups *found, const vrange_cgroup *cgroup, const char *name, char *path,
                 size_t bytes);

#endif
