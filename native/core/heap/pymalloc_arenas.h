/* The list of the interpreter's arenas. */
#ifndef VRANGE_PYMALLOC_ARENAS_H
#define VRANGE_PYMALLOC_ARENAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"

#define PYMALLOC_ARENA_BYTES ((size_t)1 << 20)

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

/* In a child that was made without fork handlers. If the list was being changed, it is forgotten, and what the
 * interpreter has then is not trimmed. */
void pymalloc_renew_lock(void);

#endif
