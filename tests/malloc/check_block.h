/* What the programs share that are run with vrange's malloc preloaded and know nothing of it: a check that ends
 * the process, also a child, and says where; and the figures of a process. */
#ifndef CHECK_BLOCK_H
#define CHECK_BLOCK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                               \
        }                                                                           \
    } while (0)
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* Returns the number after `name` in a file of this process, such as "LazyFree:" in smaps_rollup; -1 without one. */
static inline long figure(const char *path, const char *name) {
    char line[256];
    long found = -1;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0) found = atol(line + strlen(name));
    if (file) fclose(file);
    return found;
}

static inline long memory_kib(const char *name) { return figure("/proc/self/smaps_rollup", name); }

#endif
