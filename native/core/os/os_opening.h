/* Opening files, with numbers above those of the standard streams.
 *
 * A process may have been started with one of these closed. The program would then read or write our file as
 * its own standard input or output. */
#ifndef VRANGE_OS_OPENING_H
#define VRANGE_OS_OPENING_H

/* Moves a descriptor that was just opened. -1 with errno. Async-signal-safe. */
int os_above_standard(int descriptor);

/* open(2) with O_CLOEXEC. Async-signal-safe. */
int os_open_file(const char *path, int flags, unsigned mode);

#endif
