/* The pressure watcher's thread. */
#ifndef VRANGE_WATCHER_H
#define VRANGE_WATCHER_H

/* In the child of a fork, where the thread does not exist: nothing is watched until the watcher is started
 * again. */
void watcher_after_fork(void);

#endif
