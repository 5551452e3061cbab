/* Notes the blocks of arrays that were filled, and offers them to the kernel. */
#ifndef VRANGE_ARRAY_OFFER_H
#define VRANGE_ARRAY_OFFER_H

#include "arrays/array_state.h"

/* These blocks were filled, or lost their last pin, and have to be offered. */
void note_filled(vrange_array *array, size_t first, size_t count);
/* Offers at once if much has accumulated. */
void offer_if_much(void);
/* Call before the array is closed. */
void forget_filled(vrange_array *array);

/* Offers the blocks that were filled and are not pinned. */
void arrays_offer(void);

#endif
