/* The observer of the memory that the interpreter takes for objects and for frames. Deep calls observe it,
 * and the wrapped provider of arenas reports it; neither room knows the other. */
#ifndef VRANGE_ARENA_OBSERVER_H
#define VRANGE_ARENA_OBSERVER_H

#include <stdbool.h>
#include <stddef.h>

/* Called with the bytes of each arena and each part of a frame stack: positive before it is allocated,
 * negative when it was freed or could not be. The observer runs inside an allocation, with the GIL held, and
 * must not allocate from Python; false refuses the allocation. */
typedef bool (*arena_observer)(ptrdiff_t bytes);

/* Has the one observer called from now on. Returns NULL, or why observing is impossible. */
const char *arena_observe(arena_observer observer);

/* Registers what starts the reports to an observer, from a constructor. */
void arena_observer_register(const char *(*report_to)(arena_observer observer));

#endif
