#ifndef VRANGE_IDLE_THREADS_H
#define VRANGE_IDLE_THREADS_H

void idle_after_fork(void);

#endif
