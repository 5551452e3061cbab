/* What the files about the interpreter's own allocator share. */
#ifndef VRANGE_PYMALLOC_H
#define VRANGE_PYMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PYMALLOC_ARENA_BYTES ((size_t)1 << 20)

/* ---- which arenas there are (pymalloc_arenas.c) ----------------------------------------------- */

/* From now on every arena that is allocated is noted. Again is nothing. NULL, or why it can't be. */
const char *pymalloc_watch(void);
bool pymalloc_is_watching(void);

/* The interpreter whose GIL the caller holds; -1: it holds none. */
int64_t pymalloc_interpreter(void);

/* The arenas of one interpreter: a copy for the caller to free(3). *others counts the rest. NULL
 * without memory. */
uintptr_t *pymalloc_arenas_of(int64_t interpreter, size_t *count, size_t *others);

/* Only the interpreter's own threads free its arenas, with its GIL held: while the caller holds it,
 * the answer stays true. */
bool pymalloc_is_arena_of(int64_t interpreter, uintptr_t arena);

void pymalloc_before_fork(void);
void pymalloc_after_fork(void);

/* ---- giving back (pymalloc_trim.c): all of it with the GIL held ------------------------------- */

#define PYMALLOC_POOLS 0 /* pools without an object */
#define PYMALLOC_TAILS 1 /* and what lies behind the last object of the others */
#define PYMALLOC_HOLES 2 /* and whole pages between objects */

typedef struct {
    uint64_t arenas;  /* looked at */
    uint64_t odd;     /* left alone: what lies there is not what this interpreter would have written */
    uint64_t pool_bytes, tail_bytes, hole_bytes; /* resident before, and given back */
} pymalloc_trimmed;

void pymalloc_trim_arena(uintptr_t arena, int level, pymalloc_trimmed *trimmed);

/* Allocates and frees a few objects and looks whether each leaves the traces that pymalloc's pools
 * have. NULL, or what was otherwise. */
const char *pymalloc_layout_refusal(void);

#endif
