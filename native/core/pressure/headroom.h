/* How many bytes can still be allocated below the tightest limit. Called inside the gate. */
#ifndef VRANGE_HEADROOM_H
#define VRANGE_HEADROOM_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes free below the tightest limit of the process's cgroups; UINT64_MAX if they have none. False if it is
 * not known whether there is a limit. Above `enough` the figure need not be exact. */
bool headroom_below_limits(uint64_t enough, uint64_t *free_bytes);

/* Whether less than `enough` is free below those limits, for threads that store at full speed: a thread that
 * would have to wait for another one takes the answer that was found last. False if nothing is known. */
bool headroom_is_below(uint64_t enough);

/* Like headroom_below_limits, for a large value: file pages that were used more than once are also taken before
 * the process is killed, although the kernel takes other pages first. */
bool headroom_with_files(uint64_t enough, uint64_t *free_bytes);

/* Bytes below the limit that the program has set for its resident set, and (unless NULL) that limit; both
 * are UINT64_MAX if it has set none. */
uint64_t headroom_below_set(uint64_t *limit);

/* The same for a copy of a value that is volatile afterwards. If the judge spares offered bytes, such a copy
 * may exceed the limit for a moment. */
uint64_t headroom_of_copy(void);

/* Bytes free on the machine, including what could be freed at once, as of at most `age_ns` ago: the file
 * that reports it is long. 0 if unknown. */
uint64_t headroom_of_machine(uint64_t age_ns);

/* Bytes free below the limits and on the machine, for processes in which no file of vrange's may stay open.
 * Takes a large part of a millisecond. UINT64_MAX if nothing is known. */
uint64_t headroom_found_anew(void);

#endif
