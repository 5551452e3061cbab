#ifndef VRANGE_IDLE_H
#define VRANGE_IDLE_H

void idle_after_fork(void);

#endif
