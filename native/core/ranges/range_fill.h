/* Puts content into the pages of a range that the caller has BUSY. */
#ifndef VRANGE_RANGE_FILL_H
#define VRANGE_RANGE_FILL_H

#include <stdbool.h>

#include "vrange.h"

int fill_zero(char *address, size_t bytes);
/* If `offers`, the pages are offered to the kernel while they are filled: the caller must secure them
 * afterwards. */
int fill_parts(char *address, const vrange_part *parts, size_t count, bool offers);

/* Writes over pages that are all present and not offered. */
void fill_over(char *address, const vrange_part *parts, size_t count);

#endif
