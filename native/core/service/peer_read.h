/* Reads a value out of the memory of the process that owns it, without its help. */
#ifndef VRANGE_PEER_READ_H
#define VRANGE_PEER_READ_H

#include <stdbool.h>

#include "service/index_layout.h"

/* Whether other processes can tell the content of this process's ranges from what the kernel took. */
bool peer_may_read(void);

/* VRANGE_OK: `to` has the value as it was at some moment of this call. VRANGE_PURGED: it is gone, or its owner
 * is. -EPERM and others: this process may not read the owner's memory. */
int peer_read(const index_member *owner, const index_place *place, void *to);

#endif
