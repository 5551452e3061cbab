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

enum {
    GATE_WIPED, /* as the kernel leaves it in a child, and before the library's constructors ran */
    GATE_OPEN,
    GATE_CLOSED,
};

/* Every pin reads the state, so it has a cache line apart from the count that every slow call writes. */
typedef struct {
    _Alignas(4096) _Atomic uint32_t state;
    _Alignas(64) _Atomic int inside;
} gate_page;

extern gate_page gate;

/* A pin is one atomic exchange of a word, outside the gate. After it the thread checks whether a fork is
 * under way, as that fork may already have looked for pins. If so, the thread takes the pin back and
 * waits. */
static inline bool gate_is_closed(void) { return atomic_load(&gate.state) != GATE_OPEN; }
void gate_wait(void);

/* Whether this is a child that was made without fork handlers and has not come to the gate yet. For a thread
 * that waits outside the gate for another one. */
static inline bool gate_is_wiped(void) { return atomic_load(&gate.state) == GATE_WIPED; }

/* Leaves the gate if this thread is inside. Returns true if it was inside, and so has to enter again. For
 * a thread in a signal handler that must wait for the thread that closes the gate. */
bool gate_step_out(void);

/* For fork, and for mending (userfault_closed.h): closes the gate and waits until no thread is inside. */
void gate_close(void);
void gate_open(void);

/* In the child of a fork, where the threads that waited at the gate do not exist. */
void gate_open_in_child(void);

/* Call once, at load time: sets what is called, with the gate closed, when a child that was made without fork
 * handlers first comes to the gate. It does what those handlers do. */
void gate_register_settle(void (*settle)(void));

/* For the fork handler in the child: another handler came to the gate before it, so all is done. */
bool gate_was_settled(void);

#endif
