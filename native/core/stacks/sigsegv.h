#ifndef VRANGE_OVERFLOW_H
#define VRANGE_OVERFLOW_H

#include "os/exported.h"

/* Sees to it that running off a deep stack is noticed on this thread: an alternate signal stack, as
 * a handler has no other to run on, and the handler itself. Cheap after the first time. */
int overflow_arm_thread(void) EXPORTED(overflow_arm_thread);

/* Somebody may have put a handler over ours since (faulthandler.enable): looks, and goes first again. */
void overflow_arm_process(void) EXPORTED(overflow_arm_process);

/* Puts back the handler that was there, if ours is the one in place. For the interpreter's end. */
void overflow_disarm(void) EXPORTED(overflow_disarm);

#endif
