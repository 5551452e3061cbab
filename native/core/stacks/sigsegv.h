#ifndef VRANGE_OVERFLOW_H
#define VRANGE_OVERFLOW_H

#include "exported.h"

/* Makes running off a deep stack detectable in this thread. It installs an alternate signal stack, as the
 * handler has no other stack to run on, and the handler itself. Cheap after the first time. */
int overflow_arm_thread(void) EXPORTED(overflow_arm_thread);

/* Other code may have installed a handler over ours since (faulthandler.enable): checks that, and installs
 * ours on top again. */
void overflow_arm_process(void) EXPORTED(overflow_arm_process);

/* Restores the previous handler, unless another handler was installed over ours. For the end of the
 * interpreter. */
void overflow_disarm(void) EXPORTED(overflow_disarm);

#endif
