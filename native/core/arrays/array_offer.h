#ifndef VRANGE_ARRAY_OFFER_H
#define VRANGE_ARRAY_OFFER_H

#include "arrays/array_state.h"

/* These were filled, or lost their last pin, and the kernel is to be told of them. */
void note_filled(vrange_array *array, size_t first, size_t count);
/* Tells it now where much has come together. */
void offer_if_much(void);
/* Before the array goes. */
void forget_filled(vrange_array *array);

/* Tells the kernel of what was filled and nobody has pinned. */
void arrays_offer(void);

#endif
