/* Where a value lies, and by which number an entry is known. */
#ifndef VRANGE_CACHE_PLACE_H
#define VRANGE_CACHE_PLACE_H

#include <stdint.h>

typedef uint32_t entry_no; /* 0: none */

/* A place is a range's handle, a slot of a slab, or one of these. */
#define PLACE_NOWHERE 0ull        /* lost; the hot front may still hold the value */
#define PLACE_FLIGHT (1ull << 62) /* being computed: the entry's `form` is the flight */
#define PLACE_SLOT (1ull << 63)   /* | slab number << SLOT_BITS | slot */
#define SLOT_BITS 12

#define SLAB_OWNER 0x80000000u /* vrange_owner returns, of a range: this | a slab's number, or an entry's */

#endif
