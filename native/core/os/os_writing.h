/* Writing to a file or a pipe without a signal for the program.
 *
 * A write beyond RLIMIT_FSIZE raises SIGXFSZ, and one to a pipe without a reader SIGPIPE. Either ends a program
 * that does not ignore it, and the program has asked for no write of vrange's. Async-signal-safe. */
#ifndef VRANGE_OS_WRITING_H
#define VRANGE_OS_WRITING_H

#include <signal.h>

typedef struct {
    sigset_t before, ours; /* the thread's mask, and the signals that were not pending */
} os_writing;

/* Between the two, the calling thread may write: a call fails with EFBIG or EPIPE, and no signal is left. */
void os_writing_begin(os_writing *w);
void os_writing_end(const os_writing *w);

#endif
