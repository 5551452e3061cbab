/* Requests of other processes of this user, such as `vrange trim PID`. */
#ifndef VRANGE_REQUESTS_H
#define VRANGE_REQUESTS_H

/* Looks whether there is a request, at most ten times a second, and starts a thread that answers it. Call
 * inside the gate. */
void requests_look(void);

/* In the child of a fork, where that thread does not exist. */
void requests_after_fork(void);

#endif
