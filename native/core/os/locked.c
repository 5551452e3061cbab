/* System calls: memory that the program locks (mlock, mlockall). */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

int os_discard_unlocked(void *address, size_t bytes) {
    while (madvise(address, bytes, MADV_DONTNEED) < 0) {
        if (errno != EINTR && errno != EAGAIN) return -errno;
    }
    return 0;
}

int os_discard(void *address, size_t bytes) {
    const int result = os_discard_unlocked(address, bytes);
    if (result != -EINVAL) return result;
    return madvise(address, bytes, MADV_DONTNEED_LOCKED) < 0 ? -errno : 0;
}

/* The kernel makes locked memory resident once it is accessible. vrange makes memory accessible in large steps
 * and touches it little by little: a stack of 4 GiB, for example. All of it at once could get the process
 * killed. So each page is locked once it is touched; what was touched stays in memory, as the program asked. */
int os_make_accessible(void *unused, size_t bytes) {
    const bool is_locked = os_discard_unlocked(unused, 1) == -EINVAL; /* rounded up to a page */
    if (is_locked && syscall(SYS_mlock2, unused, bytes, MLOCK_ONFAULT) < 0) return -errno;
    return mprotect(unused, bytes, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
}
