/* How much memory is free before somebody has to give some. Looked at inside the gate. */
#ifndef VRANGE_HEADROOM_H
#define VRANGE_HEADROOM_H

#include <stdbool.h>
#include <stdint.h>

/* Below the tightest limit of the process's cgroups; false where none is known. Beyond `enough` it need
 * not be exact. */
bool headroom_below_limits(uint64_t enough, uint64_t *free_bytes);

/* The same for something large: pages of files that were used more than once also go before a process
 * does, though the kernel takes others first. */
bool headroom_with_files(uint64_t enough, uint64_t *free_bytes);

/* On the machine, what could be freed at once included, as it was at most `age_ns` ago: the file that
 * tells it is long. 0: not known. */
uint64_t headroom_of_machine(uint64_t age_ns);

#endif
