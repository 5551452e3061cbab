/* The table of this process's arrays, by address and by number. A thread that is in a place keeps its array
 * open. */
#ifndef VRANGE_ARRAY_PLACES_H
#define VRANGE_ARRAY_PLACES_H

#include "arrays/array_state.h"

/* 0, or -EMFILE if there are as many arrays as there can be. */
int place_add(vrange_array *array);
/* Returns when no reader is in the place any more. */
void place_remove(vrange_array *array);

/* Every array has a number below this one; most numbers have no array. */
uint32_t places_count(void);
/* NULL, or an array that stays open until place_leave(). */
vrange_array *place_enter(uint32_t number);
void place_leave(uint32_t number);

/* The array that contains `address`. Safe in a signal handler. */
vrange_array *array_at(const void *address);

bool arrays_exist(void);

/* In the child of a fork: the threads that were in a place do not exist there. */
void places_forget_readers(void);

#endif
