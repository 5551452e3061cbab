/* The provider of the interpreter's arenas, wrapped. */
#ifndef VRANGE_PYMALLOC_HOOK_H
#define VRANGE_PYMALLOC_HOOK_H

#include <stdbool.h>
#include <stdint.h>

/* Why arenas of another size are refused, by the build's settings and by what it allocates. */
#define PYMALLOC_LARGE_ARENAS "this interpreter was built with arenas of 2 MiB (--with-pymalloc-hugepages)"

/* Records every arena that is allocated from now on. A second call does nothing. Returns NULL, or why
 * recording is impossible. */
const char *pymalloc_watch(void);
bool pymalloc_is_watching(void);

/* Returns why the records can't be relied on now, or NULL if they can. */
const char *pymalloc_watch_refusal(void);

/* Returns the interpreter whose GIL the caller holds, or -1 if it holds none. */
int64_t pymalloc_interpreter(void);

#endif
