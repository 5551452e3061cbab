/* The first answer: the object that the computing caller gets. */
#ifndef VRANGE_CACHE_FIRST_ANSWER_H
#define VRANGE_CACHE_FIRST_ANSWER_H

#include "python/cache/core.h"
#include "python/cache/form.h"

enum {
    FIRST_FAILED = -1,
    FIRST_DECODED,
    FIRST_IS_UNREADABLE,
};

/* Decodes the coded value, over `lease` if it has a range of its own. FIRST_IS_UNREADABLE: the value can't be
 * decoded, and Python has warned. FIRST_FAILED with an error set. May run Python. */
int first_answer(cache_core *self, const coded *c, PyObject *lease, PyObject **answer);

#endif
