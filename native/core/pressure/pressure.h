#ifndef VRANGE_PRESSURE_H
#define VRANGE_PRESSURE_H

/* In the child of a fork, where the thread does not exist: nothing is watched until the watcher is started
 * again. */
void pressure_after_fork(void);

#endif
