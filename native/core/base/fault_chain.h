/* Our handlers of SIGBUS, SIGSEGV and SIGURG among those of the program.
 *
 * A room registers what mends the faults of its own memory, or answers a signal that it sends itself. Every
 * other signal ends as it would without us: the handlers that were installed before are called; if there
 * were none, the default action follows. */
#ifndef VRANGE_FAULT_CHAIN_H
#define VRANGE_FAULT_CHAIN_H

#include <signal.h>
#include <stdbool.h>

typedef enum {
    FAULT_MENDED,  /* the instruction runs again */
    FAULT_FOREIGN, /* not about memory of ours */
    FAULT_FAILED,  /* ours, and it can't be mended: the process has to end */
} fault_answer;

/* Runs in the signal handler: no allocation, no lock, no Python. */
typedef fault_answer (*fault_mend)(siginfo_t *info, void *context);

/* At load time, at most FAULT_MENDS_MOST for a signal. `flags` are those of sigaction(2), besides SA_SIGINFO
 * and SA_NODEFER; for SIGURG the flags of a handler of the program's below replace them. With `ends_unmended`
 * the process also ends if a foreign touch would recur because no handler mended it. What one room asks for
 * holds for all of the same signal. */
#define FAULT_MENDS_MOST 3
void fault_chain_register(int number, fault_mend mend, int flags, bool ends_unmended);

/* Makes our handler the first one for this signal, unless the process is ending. Inside the gate. Returns
 * -errno if the kernel refuses it. */
int fault_chain_be_first(int number);
/* Removes our handler, unless another handler was installed over it: that one will call ours. Inside the
 * gate, or at the end of the process. */
int fault_chain_leave(int number);

/* In a child that was made without fork handlers: the holder of a lock does not exist. */
void fault_chain_renew_locks(void);

/* Does the same as fault_chain_be_first, and from now on fault_chain_leave does not remove our handler: a room
 * has memory that stays until the process ends. */
int fault_chain_keep(int number);

/* Whether our handler is the first one now. */
bool fault_chain_is_first(int number);

#endif
