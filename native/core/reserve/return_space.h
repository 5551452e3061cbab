/* Returning address space that is reserved and not used, once the program may need it. */
#ifndef VRANGE_RETURN_SPACE_H
#define VRANGE_RETURN_SPACE_H

#include <stdbool.h>
#include <stddef.h>

#include "exported.h"

/* Does what vrange_address_space_return does, if `bytes` more would not fit below a limit.
 * Serves malloc: it does nothing while a fork is under way, or if this thread is inside the gate. */
void return_space_for(size_t bytes) EXPORTED(return_space_for);

/* For calls that may have set a limit of any kind. Returns whether RLIMIT_AS or RLIMIT_DATA is another one than
 * at the last call; then vrange_address_space_return was called. */
bool return_space_if_changed(void) EXPORTED(return_space_if_changed);

/* The caretaker's: notices a limit that a C library or another process has set. Call inside the gate. */
void return_space_look(void);

#endif
