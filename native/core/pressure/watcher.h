/* The pressure watcher's thread. */
#ifndef VRANGE_WATCHER_H
#define VRANGE_WATCHER_H

/* Called by the caretaker when it finds that something changes: the watcher may rest while nothing does. Never
 * waits. */
void watcher_rouse(void);
/* The same, if no limit is nearer than the machine's memory. */
void watcher_rouse_of_machine(void);

/* In the child of a fork, where the thread does not exist: nothing is watched until the watcher is started
 * again. */
void watcher_after_fork(void);

#endif
