/* The system calls of os.h that are about threads and signals. They have a header of their own because its
 * users must define _GNU_SOURCE to get the types. */
#ifndef VRANGE_OS_THREAD_H
#define VRANGE_OS_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "exported.h"

/* Starts a thread that receives no signals, except for SIGBUS by a touch of its own: the application's signals
 * are for its own threads. Returns 0 or an errno. */
int os_thread_start(pthread_t *thread, void *(*function)(void *), void *argument);
/* Makes the C library unmap the stacks of `bytes` that it keeps for later threads. It keeps that of a thread
 * which ended without being joined until another one ends, however large it is. Returns 0 or -errno. */
int os_thread_return_stacks(size_t bytes);
/* Asks the scheduler to run the calling thread soon after it wakes, for a thread that works little. */
void os_thread_go_first(void);
/* Names the calling thread, for top, gdb and perf; what is longer than 15 characters is cut. Another
 * thread's name is not to be set: pthread_setname_np opens and closes a file for that. */
void os_thread_name(const char *name);
/* Waits for a thread that pthread_join has returned for: for a moment the kernel still counts it. */
void os_thread_wait_gone(int thread_id);
/* In a child: makes a lock free whose holder does not exist here. Returns whether it was held, so that what it
 * guards may be half changed. */
bool os_lock_renew(pthread_mutex_t *lock);
/* From now on the thread can't be cancelled (pthread_cancel). Returns what os_thread_allow_cancel restores. */
int os_thread_forbid_cancel(void) EXPORTED(os_thread_forbid_cancel);
void os_thread_allow_cancel(int before) EXPORTED(os_thread_allow_cancel);
int os_thread_id(void);
/* Whether the main thread has ended before the process (pthread_exit), if the main thread has loaded this
 * library; `tell` is called when it does. */
bool os_main_thread_has_ended(void);
void os_tell_end_of_main_thread(void (*tell)(void));
/* In the child of a fork, whose main thread is the one that forked. */
void os_main_thread_after_fork(void);
/* How many threads the process has, the calling one and a main thread that has ended included; or -errno. */
int os_threads(void);
bool os_is_main_thread(void) EXPORTED(os_is_main_thread);
/* The calling thread's own stack, without its guard. Not async-signal-safe. */
int os_thread_stack(char **low, char **top);
/* Whether the thread is waiting in the kernel, so that a signal interrupts no code that it is running. */
bool os_thread_is_blocked(int thread_id);
/* Where the stack of a waiting thread ends. 0 if the thread runs; -errno if the kernel does not say. */
int os_thread_stack_pointer(int thread_id, char **sp);
/* Whether the thread would run a handler of this signal: it neither blocks it nor waits for it (sigwait).
 * False if the kernel does not say what it blocks. */
bool os_thread_takes_signal(int thread_id, int number);
int os_thread_signal(int thread_id, int number);
/* Where the frames that a signal interrupted end; `context` is the third argument of its handler.
 * `otherwise` on an architecture that is not known. */
char *os_interrupted_stack_pointer(const void *context, char *otherwise);
/* Blocks more signals in this thread. Async-signal-safe. */
void os_block_signals(const sigset_t *more);
/* Blocks one signal, and stores the previous mask for os_unblock_to. */
void os_block_signal(int number, sigset_t *before);
void os_unblock_signal(int number);
void os_unblock_to(const sigset_t *before);
int os_signal_action(int number, const struct sigaction *action, struct sigaction *previous);
int os_alternate_stack(const stack_t *stack, stack_t *previous);
size_t os_alternate_stack_bytes(void);

#endif
