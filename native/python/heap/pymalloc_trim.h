/* Trimming the interpreter's arenas. The caller holds the GIL. */
#ifndef VRANGE_PYMALLOC_TRIM_H
#define VRANGE_PYMALLOC_TRIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Level 0 discards only pools without an object. */
#define PYMALLOC_TAILS 1 /* also what lies behind the last object of each other pool */
#define PYMALLOC_HOLES 2 /* also whole pages between objects */

typedef struct {
    uint64_t odd;   /* arenas that were left alone: their content is not what this interpreter writes */
    uint64_t bytes; /* that were resident and were discarded */
    bool only_counts; /* nothing is changed: `bytes` is what would be discarded */
} pymalloc_trimmed;

void pymalloc_trim_arena(uintptr_t arena, int level, pymalloc_trimmed *trimmed);

/* Allocates and frees a few objects, and checks that each leaves the traces of pymalloc's pools. Returns
 * NULL, or what differs. */
const char *pymalloc_layout_refusal(void);

#endif
