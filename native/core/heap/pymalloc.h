/* What the files on the interpreter's own allocator share. */
#ifndef VRANGE_PYMALLOC_H
#define VRANGE_PYMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"

#define PYMALLOC_ARENA_BYTES ((size_t)1 << 20)

/* ---- the provider of arenas (pymalloc_hook.c) -------------------------------------------------- */

/* Records every arena that is allocated from now on. A second call does nothing. Returns NULL, or why
 * recording is impossible. */
const char *pymalloc_watch(void);
bool pymalloc_is_watching(void);

/* Also calls one observer with the bytes of each arena and each part of a frame stack: positive before it is
 * allocated, negative when it was freed or could not be. The observer runs inside an allocation, with the GIL
 * held, and must not allocate from Python; false refuses the allocation. Returns NULL, or why observing is
 * impossible. */
const char *pymalloc_observe(bool (*observer)(ptrdiff_t bytes));

/* Returns why the records can't be relied on now, or NULL if they can. */
const char *pymalloc_watch_refusal(void);

/* Returns the interpreter whose GIL the caller holds, or -1 if it holds none. */
int64_t pymalloc_interpreter(void);

/* ---- the list of arenas (pymalloc_arenas.c) ---------------------------------------------------- */

/* Without memory for the record, the arena stays unknown. */
void pymalloc_note(uintptr_t arena, int64_t interpreter) EXPORTED(pymalloc_note);
void pymalloc_forget(uintptr_t arena) EXPORTED(pymalloc_forget);

/* Returns the arenas of one interpreter, in a copy that the caller frees with free(3), or NULL without
 * memory. *others counts the arenas of other interpreters. */
uintptr_t *pymalloc_arenas_of(int64_t interpreter, size_t *count, size_t *others) EXPORTED(pymalloc_arenas_of);

/* The answer stays true while the caller holds the interpreter's GIL: only the interpreter's own threads
 * free its arenas, and they hold that GIL. */
bool pymalloc_is_arena_of(int64_t interpreter, uintptr_t arena) EXPORTED(pymalloc_is_arena_of);

/* Held across fork, so that the child inherits a consistent list. */
void pymalloc_before_fork(void);
void pymalloc_after_fork(void);

/* ---- trimming (pymalloc_trim.c): the caller holds the GIL -------------------------------------- */

#define PYMALLOC_POOLS 0 /* pools without an object */
#define PYMALLOC_TAILS 1 /* also what lies behind the last object of each other pool */
#define PYMALLOC_HOLES 2 /* also whole pages between objects */

typedef struct {
    uint64_t arenas;  /* that were examined */
    uint64_t odd;     /* that were left alone: their content is not what this interpreter writes */
    uint64_t pool_bytes, tail_bytes, hole_bytes; /* that were resident and were discarded */
} pymalloc_trimmed;

void pymalloc_trim_arena(uintptr_t arena, int level, pymalloc_trimmed *trimmed);

/* Allocates and frees a few objects, and checks that each leaves the traces of pymalloc's pools. Returns
 * NULL, or what differs. */
const char *pymalloc_layout_refusal(void);

#endif
