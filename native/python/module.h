/* The extension module vrange._hit. */
#ifndef VRANGE_MODULE_H
#define VRANGE_MODULE_H

#include "python/support.h"

/* What one room adds to the module. Static, as the list of parts keeps it. */
typedef struct module_part {
    int (*add_to)(PyObject *module);
    struct module_part *next;
} module_part;

/* Has the part's `add_to` called with the module when it is imported. Rooms above call this from a
 * constructor. */
void module_register(module_part *part);

#endif
