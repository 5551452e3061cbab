/* Store: a value gets a place, and its key's entry refers to it. */
#ifndef VRANGE_CACHE_STORE_H
#define VRANGE_CACHE_STORE_H

#include "python/cache/flight.h"

/* Stores under a key: replaces its value, and calls off its computation. If there is no room, the key is
 * purged. expires_ns 0: by the cache's ttl. -1 with an error set. May run Python. */
int store_set(cache_core *self, PyObject *key, key_hash hash, PyObject *value, uint64_t expires_ns,
              uint64_t cost_ns);

/* Stores in place of the value that has this stamp, with its ttl from now on. False: there is no such value any
 * more, as the key was set or removed, or the new value could not be stored. -1 with an error set. May run
 * Python. */
int store_renewed(cache_core *self, PyObject *key, key_hash hash, PyObject *value, uint32_t stamp,
                  uint64_t cost_ns);

/* Stores what a flight computed, unless it was called off. Returns the value for the caller, or NULL with an
 * error set. May run Python. */
PyObject *store_computed(flight *of, PyObject *value, uint64_t cost_ns);

#endif
