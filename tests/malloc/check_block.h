/* What the programs share that are run with vrange's malloc preloaded and know nothing of it: a check that ends
 * the process, also a child, and says where. */
#ifndef CHECK_BLOCK_H
#define CHECK_BLOCK_H

#include <stdio.h>
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

#endif
