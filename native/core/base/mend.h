/* Mending: the userfaultfd was closed by somebody, and is opened again, or a lower rung is taken. */
#ifndef VRANGE_MEND_H
#define VRANGE_MEND_H

/* Once, at load time: what is called with the gate closed, where the userfaultfd no longer holds. */
void mend_register(void (*function)(void));

/* Inside the gate, with no range BUSY and no lock held. The gate is left and entered
 * again: others may have changed anything meanwhile. */
void mend(void);

/* A touch of an array could not be answered: waits until another thread has mended, or does it. 0, or an
 * errno where nothing was to be mended. `waited`: how often it was called for this touch, from 0 on. */
int mend_for_touch(unsigned waited, int error);

#endif
