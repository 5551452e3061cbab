/* Ends vrange's threads for the moment of a fork that the interpreter has announced. */
#ifndef VRANGE_FORK_PAUSE_H
#define VRANGE_FORK_PAUSE_H

/* Outside the gate. */
void pause_before_fork(void);
void pause_after_fork_in_child(void);

#endif
