/* Finding the memory cgroups around this process.
 *
 * The kernel reports the cgroup of a process as a path. The mount table says which part of which hierarchy
 * is visible where: a container sees its own cgroup as the root, a hybrid machine has v1's memory
 * controller beside a v2 without one, and a process may have been moved to where its mounts don't reach.
 * If a path can't be located, the mount's root is used: its limits, if any, apply as well.
 *
 * Paths are bytes, not text in any encoding. */
#include "pressure/cgroups.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"

#define TEXT_MOST ((size_t)16 << 20) /* a machine with thousands of containers has a long mount table */

/* At memory.high no process is killed, but a process above it is slowed until it is below again, and the
 * kernel reclaims what was offered. So a cache must give way there. */
static const cgroup_files files[] = {
    {"memory.usage_in_bytes", "memory.stat", NULL, {"memory.limit_in_bytes", NULL}},
    {"memory.current", "memory.stat", "memory.pressure", {"memory.max", "memory.high"}},
};

const cgroup_files *cgroup_files_of(int version) { return &files[version == 1 ? 0 : 1]; }

const char *vrange_cgroup_file(int version, int which) {
    const cgroup_files *names = cgroup_files_of(version);
    if (which == VRANGE_CGROUP_USAGE) return names->usage;
    const int limit = which - VRANGE_CGROUP_LIMIT;
    return limit >= 0 && limit < VRANGE_CGROUP_LIMITS ? names->limits[limit] : NULL;
}

/* ---- the kernel's texts ------------------------------------------------------------------------ */

/* The whole text of a file, to be freed; NULL and *error if it can't be read. */
static char *text_of(const char *directory, const char *name, int *error) {
    char path[VRANGE_PATH_BYTES];
    char *text = NULL;
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path) {
        *error = -ENAMETOOLONG;
        return NULL;
    }
    for (size_t bytes = 16384; bytes <= TEXT_MOST; bytes *= 2) {
        char *larger = realloc(text, bytes);
        if (!larger) break;
        text = larger;
        const int length = os_read_whole(path, text, bytes);
        if (length >= 0 && (size_t)length < bytes - 1) return text;
        if (length < 0) {
            *error = length;
            free(text);
            return NULL;
        }
    }
    *error = -ENOMEM;
    free(text);
    return NULL;
}

/* Ends the line at `line` with a NUL; returns the next line, or NULL. */
static char *cut_line(char *line) {
    char *end = strchr(line, '\n');
    if (!end) return NULL;
    *end = 0;
    return end + 1;
}

/* Ends the word at `word` with a NUL; returns the next word of the line, or NULL. */
static char *cut_word(char *word) {
    char *end = word ? strchr(word, ' ') : NULL;
    if (!end) return NULL;
    *end = 0;
    return end + 1;
}

/* Whether `word` is one of those in `list`, which commas separate. */
static bool is_listed(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == 0)) return true;
    return false;
}

static bool is_octal(char c) { return c >= '0' && c <= '7'; }

/* The mount table writes blanks and backslashes in octal. */
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
}

/* ---- paths ------------------------------------------------------------------------------------- */

static bool leads_up(const char *path) {
    for (const char *at = path; (at = strstr(at, "..")); at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == 0)) return true;
    return false;
}

static size_t length_without_slash(const char *path) {
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/') length--;
    return length;
}

/* Finds the directory of the cgroup `path`, if the cgroup `root` is mounted at `mount_point`. False if the
 * mount does not show it: the process was moved, or its namespace begins elsewhere. */
static bool find_below(const char *mount_point, const char *root, const char *path, char *directory) {
    const size_t shown = length_without_slash(root);
    if (leads_up(path) || leads_up(root) || strncmp(path, root, shown) != 0) return false;
    if (path[shown] != 0 && path[shown] != '/') return false;
    const int length = snprintf(directory, VRANGE_PATH_BYTES, "%.*s%s",
                                (int)length_without_slash(mount_point), mount_point, path + shown);
    if (length < 0 || length >= VRANGE_PATH_BYTES) return false;
    directory[length_without_slash(directory)] = 0;
    return os_is_directory(directory);
}

static size_t depth_of(const vrange_hierarchy *h) {
    size_t depth = 0;
    for (const char *at = h->directory + length_without_slash(h->mount_point); *at; at++) depth += *at == '/';
    return depth;
}

/* ---- hierarchies ------------------------------------------------------------------------------- */

/* The paths of the process in each version's hierarchy; NULL if it is in none. They point into `text`. */
static void find_paths(char *text, const char *paths[CGROUP_HIERARCHIES]) {
    for (char *line = text, *next; line; line = next) {
        next = cut_line(line);
        char *controllers = strchr(line, ':'), *path;
        if (!controllers || !(path = strchr(controllers + 1, ':'))) continue;
        *controllers++ = 0;
        *path++ = 0;
        if (strcmp(line, "0") == 0 && !*controllers) paths[1] = path;
        else if (is_listed(controllers, "memory")) paths[0] = path;
    }
}

static vrange_hierarchy *hierarchy_of(vrange_cgroups *out, int version) {
    for (size_t i = 0; i < out->hierarchy_count; i++)
        if (out->hierarchies[i].version == version) return &out->hierarchies[i];
    return NULL;
}

/* Notes a mounted hierarchy that may have a memory controller. */
static void add_mount(vrange_cgroups *out, char *line, const char *paths[CGROUP_HIERARCHIES]) {
    char *after = strstr(line, " - ");
    if (!after) return;
    *after = 0;
    char *kind = after + 3, *device = cut_word(kind), *options = cut_word(device);
    int version;
    if (strcmp(kind, "cgroup2") == 0) version = 2;
    else if (strcmp(kind, "cgroup") == 0 && options && is_listed(options, "memory")) version = 1;
    else return;
    const char *path = paths[version - 1];
    char *word = line;
    for (int i = 0; i < 3; i++) word = cut_word(word);
    char *root = word, *mount_point = cut_word(root);
    cut_word(mount_point);
    if (!path || !mount_point || strlen(mount_point) >= VRANGE_PATH_BYTES) return;
    unescape(root);
    unescape(mount_point);
    vrange_hierarchy here = {.version = version};
    strcpy(here.mount_point, mount_point);
    if (!find_below(mount_point, root, path, here.directory)) strcpy(here.directory, mount_point);
    /* The same hierarchy may be mounted a second time with a smaller part visible. */
    vrange_hierarchy *before = hierarchy_of(out, version);
    if (!before) out->hierarchies[out->hierarchy_count++] = here;
    else if (depth_of(&here) > depth_of(before)) *before = here;
}

/* ---- cgroups ----------------------------------------------------------------------------------- */

bool cgroup_path(const vrange_cgroups *found, const vrange_cgroup *cgroup, const char *name, char *path,
                 size_t bytes) {
    if (!name) return false;
    const int length = snprintf(path, bytes, "%.*s/%s", (int)cgroup->directory_bytes,
                                found->hierarchies[cgroup->hierarchy].directory, name);
    return length > 0 && (size_t)length < bytes;
}

static bool has_file(const vrange_cgroups *found, const vrange_cgroup *cgroup, const char *name) {
    char path[VRANGE_PATH_BYTES];
    return cgroup_path(found, cgroup, name, path, sizeof path) && os_exists(path);
}

/* Adds the process's own cgroup and those around it. v2's root has no usage file, nor has a v2 without the
 * memory controller. */
static void add_cgroups(vrange_cgroups *out, int hierarchy) {
    const vrange_hierarchy *h = &out->hierarchies[hierarchy];
    const size_t top = length_without_slash(h->mount_point);
    vrange_cgroup *last = NULL;
    for (size_t length = length_without_slash(h->directory);; length--) {
        vrange_cgroup here = {.hierarchy = hierarchy, .directory_bytes = (uint32_t)length};
        if (has_file(out, &here, cgroup_files_of(h->version)->usage) && out->count < VRANGE_CGROUPS) {
            last = &out->cgroups[out->count++];
            *last = here;
        }
        while (length > top && h->directory[length - 1] != '/') length--;
        if (length <= top) break;
    }
    /* Only the root of all has that file. Nothing is above it, and its statistics are expensive. */
    if (last && h->version == 1) last->whole_tree = !has_file(out, last, "cgroup.sane_behavior");
}

int cgroups_find(const char *proc_self, vrange_cgroups *out) {
    const char *paths[CGROUP_HIERARCHIES] = {NULL, NULL};
    int error = 0;
    memset(out, 0, sizeof *out);
    char *text = text_of(proc_self, "cgroup", &error);
    char *mounts = text ? text_of(proc_self, "mountinfo", &error) : NULL;
    if (mounts) {
        find_paths(text, paths);
        for (char *line = mounts, *next; line; line = next) {
            next = cut_line(line);
            add_mount(out, line, paths);
        }
        for (size_t i = 0; i < out->hierarchy_count; i++) add_cgroups(out, (int)i);
    }
    free(text);
    free(mounts);
    return mounts ? 0 : error;
}
