/* The gate: whoever is about to change more than one word of the core's state enters it, and fork
 * waits until nobody is inside. So a child never inherits a range that is BUSY for ever, or a lock
 * whose holder does not exist. Not to be entered twice by one thread. */
#ifndef VRANGE_FORK_H
#define VRANGE_FORK_H

void gate_enter(void);
void gate_leave(void);

#endif
