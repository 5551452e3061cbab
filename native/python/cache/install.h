/* Install: in one stretch, a key's entry is found or added, and refers to the place of a stored value. */
#ifndef VRANGE_CACHE_INSTALL_H
#define VRANGE_CACHE_INSTALL_H

#include "python/cache/flight.h"
#include "python/cache/form.h"

/* Where to store: in a flight's entry, or under a key. */
typedef struct {
    flight *of; /* NULL: under the key */
    PyObject *key;
    key_hash hash;
    uint64_t expires_ns, cost_ns;
    uint32_t renews;    /* only in place of the value with this stamp; 0: whatever is there */
    entry_no stored_in; /* set by install */
    uint32_t stamp;
    bool called_off, is_private;
    bool is_unfit;   /* can't be coded: no value like it was ever stored */
    bool has_caller; /* a caller gets the answer */
    PyObject *lease; /* set by store.c: pins the range of the value, so that others go for it */
} store_request;

/* Returns the entry; 0: no memory, or called off; FIND_FAILED with an error set. May run
 * Python, but not after it found or added the entry. */
entry_no install_target(cache_core *self, store_request *r);

/* Removes an entry that install_target added, if its value found no place. */
void install_forget(cache_core *self, const store_request *r, entry_no number);

/* Makes the entry refer to the place, and gives back the place that it had. The caller drops the references
 * in `before`. */
void install(cache_core *self, store_request *r, entry_no number, uint64_t place, const coded *c,
             PyObject *before[2]);

#endif
