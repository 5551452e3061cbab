/* Makes the kernel take what is not pinned of an array. */
#ifndef VRANGE_ARRAY_DISCARD_H
#define VRANGE_ARRAY_DISCARD_H

#include "arrays/array_state.h"

/* Inside the gate. Returns 0 or -errno: then some of these blocks stayed, with the same content. */
int discard_unpinned(vrange_array *array);

#endif
