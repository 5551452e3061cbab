/* The gate keeps a fork from happening in the middle of a change.
 *
 * A thread that is about to change more than one word of the core's state enters the gate, and fork waits
 * until no thread is inside. So a child never inherits a range that stays BUSY for ever, or a lock whose
 * holder does not exist. A thread must not enter twice. */
#ifndef VRANGE_GATE_H
#define VRANGE_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

void gate_enter(void);
void gate_leave(void);

/* Returns false instead of waiting: a fork is under way, or this thread is inside already. For what serves
 * malloc. A thread that waited there for a fork might hold the lock that another library's fork handler waits
 * for. */
bool gate_try_enter(void);

/* A pin is one atomic exchange of a word, outside the gate. After it the thread checks whether a fork is
 * under way, as that fork may already have looked for pins. If so, the thread takes the pin back and
 * waits. */
extern _Atomic uint32_t gate_closed_by; /* the process whose thread closed the gate; 0: it is open */
static inline bool gate_is_closed(void) { return atomic_load(&gate_closed_by) != 0; }
void gate_wait(void);

/* Leaves the gate if this thread is inside. Returns true if it was inside, and so has to enter again. For
 * a thread in a signal handler that must wait for the thread that closes the gate. */
bool gate_step_out(void);

/* For fork, and for mending (userfault_closed.h): closes the gate and waits until no thread is inside. */
void gate_close(void);
void gate_open(void);

/* In the child of a fork, where the threads that waited at the gate do not exist. */
void gate_open_in_child(void);

#endif
