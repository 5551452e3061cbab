/* Handlers for the end of a thread, however it ends. */
#ifndef VRANGE_THREAD_END_H
#define VRANGE_THREAD_END_H

/* Call once, at load time. The handlers run in no particular order. */
void thread_end_register(void (*handler)(void));

/* From now on the handlers run when the calling thread ends. -errno if that is not possible. */
int thread_end_watch(void);

#endif
