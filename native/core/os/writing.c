/* System calls: what keeps a write of vrange's from raising a signal; see os_writing.h. */
#define _GNU_SOURCE
#include "os/os_writing.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const int raised[] = {SIGXFSZ, SIGPIPE}; /* by the writing thread, for itself */
#define RAISED (sizeof raised / sizeof *raised)

void os_writing_begin(os_writing *w) {
    sigset_t both, pending;
    sigemptyset(&both);
    for (size_t i = 0; i < RAISED; i++) sigaddset(&both, raised[i]);
    w->ours = both;
    pthread_sigmask(SIG_BLOCK, &both, &w->before);
    if (sigpending(&pending) < 0) return;
    for (size_t i = 0; i < RAISED; i++)
        if (sigismember(&pending, raised[i]) == 1) sigdelset(&w->ours, raised[i]);
}

void os_writing_end(const os_writing *w) {
    const int error = errno;
    const struct timespec at_once = {0};
    /* The system call itself: the C library's function may end a thread that is cancelled. */
    while (syscall(SYS_rt_sigtimedwait, &w->ours, NULL, &at_once, _NSIG / 8) > 0) continue;
    pthread_sigmask(SIG_SETMASK, &w->before, NULL);
    errno = error;
}
