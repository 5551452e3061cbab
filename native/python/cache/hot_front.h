/* The hot front: values that a cache holds strongly. */
#ifndef VRANGE_CACHE_HOT_FRONT_H
#define VRANGE_CACHE_HOT_FRONT_H

#include "python/cache/core.h"

#define OBJECT_BYTES 64    /* an object, roughly, without its large parts */
#define HOT_ARRAYS_MOST 16 /* items of a hot tuple with arrays */

/* Offers a value that was read to the front. `is_copy`: it was read from another process. May run Python. -1
 * with an error set. */
int hot_offer(cache_core *self, entry_no number, uint32_t stamp, PyObject *value, bool is_copy);

/* Removes the value from the front. Returns its reference, which the caller drops, or NULL. */
PyObject *hot_release(cache_core *self, entry_no number);

/* The object that a caller gets for a hot value. NULL with an error set. Runs no Python code. */
PyObject *hot_answer(const entry *e);

/* Counts a hit on a hot value. */
void hot_count(cache_core *self, entry *e);

/* Drops one value, and its key if its range is lost. May run Python. */
void hot_let_go(cache_core *self, entry_no number);

/* Drops all values. May run Python. */
void hot_clear(cache_core *self);

/* Forgets all values. The caller drops their references. */
void hot_forget(cache_core *self);

/* Drops values if the automatic fronts hold more than the memory that is free now allows. Reads the limits at
 * most ten times a second. May run Python. */
void hot_give_way(void);

/* Called once for a new core. An automatic front ignores the bound. */
void hot_join(cache_core *self, Py_ssize_t bound);

/* use_hot_share(share) and set_hot_bytes(bytes) */
PyObject *hot_use_share(PyObject *module, PyObject *share);
PyObject *hot_set_automatic(PyObject *module, PyObject *bytes);

#endif
