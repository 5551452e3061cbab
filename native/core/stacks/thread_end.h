/* What is to happen at the end of a thread, however it ends. */
#ifndef VRANGE_THREAD_END_H
#define VRANGE_THREAD_END_H

/* Once, at load time. The handlers run in no particular order. */
void thread_end_register(void (*handler)(void));

/* The calling thread's end is told from now on. -errno where it can't be. */
int thread_end_watch(void);

#endif
