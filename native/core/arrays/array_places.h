#ifndef VRANGE_ARRAY_PLACES_H
#define VRANGE_ARRAY_PLACES_H

#include "arrays/array_state.h"

/* 0, or -EMFILE where there are as many arrays as there can be. */
int place_add(vrange_array *array);
/* Returns when nobody is in it any more. */
void place_remove(vrange_array *array);

/* Every array has a number below this one; most numbers have none. */
uint32_t places_count(void);
/* NULL, or an array that stays until place_leave(). */
vrange_array *place_enter(uint32_t number);
void place_leave(uint32_t number);

/* The array that `address` is in. Safe in a signal handler. */
vrange_array *array_at(const void *address);

bool arrays_exist(void);

/* In the child of a fork: whoever was in a place does not exist there. */
void places_forget_readers(void);

#endif
