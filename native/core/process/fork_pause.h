/* Ends vrange's threads for the moment of a fork, if the interpreter counts them. */
#ifndef VRANGE_FORK_PAUSE_H
#define VRANGE_FORK_PAUSE_H

#include "exported.h"

/* For an interpreter that counts threads and announces no forks, because vrange was not imported there. */
void fork_pause_always(void) EXPORTED(fork_pause_always);

/* Outside the gate. */
void pause_before_fork(void);
void pause_after_fork_in_parent(void);
void pause_after_fork_in_child(void);

#endif
