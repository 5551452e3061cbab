/* The allocators that may serve malloc in this process, and how each one returns the memory that it keeps.
 *
 * An allocator is found by the functions that it exports, whether it was linked or preloaded. An allocator
 * that a library hides under other names is not found. Each one is asked through its own function only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "heap/heap.h"
#include "os/os.h"
#include "vrange.h"

#define ROLLUP_BYTES 1024 /* the line that is looked for is among the first */

static void release_jemalloc(void *function) {
    int (*mallctl)(const char *, void *, size_t *, void *, size_t);
    *(void **)&mallctl = function;
    mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    mallctl("arena.4096.purge", NULL, NULL, NULL, 0); /* 4096 is MALLCTL_ARENAS_ALL: every arena */
}

/* A figure of jemalloc's; 0 if it was built without statistics. */
static size_t read_jemalloc(void *function, const char *name) {
    int (*mallctl)(const char *, void *, size_t *, void *, size_t);
    *(void **)&mallctl = function;
    size_t value = 0, bytes = sizeof value;
    return mallctl(name, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

static int64_t unused_jemalloc(void *function) {
    int (*mallctl)(const char *, void *, size_t *, void *, size_t);
    *(void **)&mallctl = function;
    uint64_t epoch = 1;
    mallctl("epoch", NULL, NULL, &epoch, sizeof epoch); /* the figures are those of the last epoch */
    const size_t resident = read_jemalloc(function, "stats.resident");
    if (!resident) return -ENOTSUP;
    const size_t used =
        read_jemalloc(function, "stats.active") + read_jemalloc(function, "stats.metadata");
    return resident > used ? (int64_t)(resident - used) : 0;
}

static int64_t unused_tcmalloc(void *function) {
    (void)function;
    int (*read_figure)(const char *, size_t *);
    *(void **)&read_figure = dlsym(RTLD_DEFAULT, "MallocExtension_GetNumericProperty");
    size_t value = 0;
    if (!read_figure || !read_figure("tcmalloc.pageheap_free_bytes", &value)) return -ENOTSUP;
    return (int64_t)value;
}

static void release_mimalloc(void *function) {
    void (*mi_collect)(bool force);
    *(void **)&mi_collect = function;
    mi_collect(true);
}

static void release_tcmalloc(void *function) {
    void (*release_free_memory)(void);
    *(void **)&release_free_memory = function;
    release_free_memory();
}

static void release_glibc(void *function) {
    int (*trim)(size_t);
    *(void **)&trim = function;
    trim(0);
}

/* Add the next allocator above glibc. glibc stays last, because what the others free may be glibc's own. */
static const struct {
    const char *name; /* as it is part of the library's file name: LD_PRELOAD is searched for it */
    const char *function;
    void (*release)(void *function);
    int64_t (*unused)(void *function); /* NULL: it does not tell */
    bool is_of_thread; /* returns only what the calling thread holds */
} known[VRANGE_ALLOCATORS] = {
    {"jemalloc", "mallctl", release_jemalloc, unused_jemalloc, false},
    {"mimalloc", "mi_collect", release_mimalloc, NULL, true}, /* only its own thread may clean a heap */
    {"tcmalloc", "MallocExtension_ReleaseFreeMemory", release_tcmalloc, unused_tcmalloc, false},
    {"glibc", "malloc_trim", release_glibc, NULL, false}, /* see glibc_report.c */
};

/* statm is no source for this: the kernel keeps its counters by processor, and they are at times off by
 * megabytes. */
uint64_t vrange_resident_bytes(void) {
    char text[ROLLUP_BYTES];
    const int length = os_read_small("/proc/self/smaps_rollup", text, sizeof text);
    const char *line = length < 0 ? NULL : strstr(text, "\nRss:");
    return line ? strtoull(line + strlen("\nRss:"), NULL, 10) << 10 : 0;
}

const char *vrange_allocator_known(int which) {
    return which < 0 || which >= VRANGE_ALLOCATORS ? NULL : known[which].name;
}

const char *vrange_allocator_name(int which) {
    const char *name = vrange_allocator_known(which);
    return name && dlsym(RTLD_DEFAULT, known[which].function) ? name : NULL;
}

int vrange_malloc_is_served(void) {
    void *(*volatile allocate)(size_t) = malloc; /* a compiler may leave out a block that nobody uses */
    void *block = allocate(2 * HEAP_BLOCK_BYTES_LEAST);
    const int is_ours = block && heap_has(block);
    free(block);
    return is_ours;
}

int vrange_allocator_is_of_thread(int which) {
    return which >= 0 && which < VRANGE_ALLOCATORS && known[which].is_of_thread;
}

int64_t vrange_allocator_unused(int which) {
    if (which < 0 || which >= VRANGE_ALLOCATORS) return -EINVAL;
    void *function = dlsym(RTLD_DEFAULT, known[which].function);
    return function && known[which].unused ? known[which].unused(function) : -ENOTSUP;
}

int64_t vrange_allocator_release(int which) {
    if (which < 0 || which >= VRANGE_ALLOCATORS) return -EINVAL;
    void *function = dlsym(RTLD_DEFAULT, known[which].function);
    if (!function) return -ENOTSUP;
    const uint64_t before = vrange_resident_bytes();
    known[which].release(function);
    const uint64_t after = vrange_resident_bytes();
    return before > after ? (int64_t)(before - after) : 0;
}
