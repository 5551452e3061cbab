/* The SIGSEGV handler of stacks: it opens closed parts of a stack, and reports a recursion that runs off it. */
#ifndef VRANGE_SIGSEGV_H
#define VRANGE_SIGSEGV_H

#include "exported.h"

/* Makes running off a deep stack detectable in this thread. It installs an alternate signal stack, as the
 * handler has no other stack to run on, and the handler itself, and unblocks the signal. Cheap after the
 * first time. */
int sigsegv_arm_thread(void) EXPORTED(sigsegv_arm_thread);

/* After a change of this thread's signal mask: unblocks the signal, if the thread may touch closed parts of
 * a stack. Without them a fault while it is blocked would end the process too, so nothing can wait for it. */
void sigsegv_keep_unblocked(void) EXPORTED(sigsegv_keep_unblocked);

/* Other code may have installed a handler over ours since (faulthandler.enable): checks that, and installs
 * ours on top again. Returns a negative errno if that is refused. */
int sigsegv_arm_process(void) EXPORTED(sigsegv_arm_process);
void sigsegv_look(void); /* the same, inside the gate */

/* Restores the previous handler, unless another handler was installed over ours. For the end of the
 * interpreter. */
void sigsegv_disarm(void) EXPORTED(sigsegv_disarm);

#endif
