/* The hot front: values that a cache holds strongly. */
#ifndef VRANGE_CACHE_HOT_FRONT_H
#define VRANGE_CACHE_HOT_FRONT_H

#include "python/cache/core.h"

/* Offers a value that was read to the front. May run Python. -1 with an error set. */
int hot_offer(cache_core *self, entry_no number, uint32_t stamp, PyObject *value);

/* Takes the value off the front: a reference for the caller to drop, or NULL. */
PyObject *hot_release(cache_core *self, entry_no number);

/* Counts a hit on a hot value. */
void hot_count(cache_core *self, entry *e);

/* Drops one value, and its key if its range is lost. May run Python. */
void hot_let_go(cache_core *self, entry_no number);

/* Drops all values. May run Python. */
void hot_clear(cache_core *self);

/* Forgets all values, which are the caller's to drop. */
void hot_forget(cache_core *self);

/* Lets values go if automatic fronts have more than they may by what is free now. Looks at most ten times a
 * second. May run Python. */
void hot_give_way(void);

/* Once for a new core. The bound is ignored by an automatic front. */
void hot_join(cache_core *self, Py_ssize_t bound);

/* use_hot_share(share) and set_hot_bytes(bytes) */
PyObject *hot_use_share(PyObject *module, PyObject *share);
PyObject *hot_set_automatic(PyObject *module, PyObject *bytes);

#endif
