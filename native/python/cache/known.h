/* The type Known: what this process knows of a key of a shared cache. */
#ifndef VRANGE_CACHE_KNOWN_H
#define VRANGE_CACHE_KNOWN_H

#include "python/support.h"

#include <stdbool.h>

#include "vrange.h"

/* The stamp is that of the record whose value this process has in its core. It is the key's as long as one word
 * of the index has not changed. A process that joins again, as the child of a fork does, has another identity:
 * what it noted before does not count any more. */
typedef struct {
    PyObject_HEAD
    PyObject *form, *digest; /* bytes */
    PyObject *stamp;         /* an int; NULL: it has no value */
    const vrange_shared *index;
    uint64_t identity, at, word;
    int reads;   /* how often the value was read: from the index, another process, or a copy of it here */
    int near_at; /* so many reads make it worth a copy here */
} known_key;

bool is_known(PyObject *object);

int known_add_type(PyObject *module);

#endif
