/* Acts that open and close files, without any descriptor in the table of the process. */
#ifndef VRANGE_OS_APART_H
#define VRANGE_OS_APART_H

#include <stdbool.h>

/* Runs the function in a thread that has a table of descriptors of its own, and waits for it. The kernel closes
 * what is in the table when the thread ends. The function must not enter the gate, take a lock or allocate: the
 * first allocation of a thread makes glibc reserve an arena. Where no such thread can be started, the function
 * runs in the calling thread. Not async-signal-safe. */
void os_apart(void (*function)(void *context), void *context);

/* For a thread of vrange: os_read_small and os_read_whole run apart from now on. The program does not know that
 * this thread exists, so it can't wait for it before it closes all descriptors. */
void os_read_apart(void);
bool os_reads_apart(void);

#endif
