/* Putting content into pages that are BUSY and owned. */
#ifndef VRANGE_FILL_H
#define VRANGE_FILL_H

#include <stdbool.h>

#include "vrange.h"

int fill_zero(char *address, size_t bytes);
/* With `offers` the pages are offered to the kernel as they are filled: they have to be secured afterwards. */
int fill_parts(char *address, const vrange_part *parts, size_t count, bool offers);

#endif
