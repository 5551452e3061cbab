/* Mending: other code closed the userfaultfd, so vrange opens another one or moves to a lower rung. A thread
 * that finds it closed calls one of these. */
#ifndef VRANGE_USERFAULT_CLOSED_H
#define VRANGE_USERFAULT_CLOSED_H

/* Call once, at load time: sets what is called, with the gate closed, if the userfaultfd is no longer
 * ours. */
void mend_register(void (*function)(void));

/* Call inside the gate, with no range BUSY and no lock held. This leaves the gate and enters it again:
 * other threads may have changed anything meanwhile. */
void mend(void);

/* A touch of an array could not be answered: waits until another thread has mended, or mends itself.
 * Returns 0, or `error` if there was nothing to mend. `waited` is how often this was called for the same
 * touch before. */
int mend_for_touch(unsigned waited, int error);

#endif
