/* All arenas of the process; for arena.c, and for the floors above that mend and fork. */
#ifndef VRANGE_ALL_ARENAS_H
#define VRANGE_ALL_ARENAS_H

#include "ranges/arena_state.h"

/* A zeroed arena that is in no list yet; NULL without memory. */
vrange_arena *arenas_take_blank(void);
void arenas_give_blank(vrange_arena *arena);

void arenas_add(vrange_arena *arena);
void arenas_remove(vrange_arena *arena);

bool arenas_exist(void);

/* Locks the list, and returns its first arena, to which the others are linked. */
vrange_arena *arenas_enter(void);
void arenas_leave(void);

/* Before fork: passes all arenas to inherit.h. */
void arenas_before_fork(void);

/* In the child of a fork, if inherit.h settled: counts every range that was not kept as purged. */
void arenas_after_fork(void);

/* In a child that was made without fork handlers. An arena that was being changed holds nothing new. */
void arenas_renew_locks(void);

/* In the child of a fork: registers every arena with the new descriptor. */
int arenas_register_again(int userfault);
#endif
