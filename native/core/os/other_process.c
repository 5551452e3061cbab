/* System calls: what lets children read this process, and what they share with it. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

int os_let_read(uint32_t ancestor) {
    char scope[8];
    const int length = os_read_small("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof scope);
    if (length <= 0 || scope[0] != '1') return -ENOTSUP; /* allowed, or never allowed */
    return prctl(PR_SET_PTRACER, (unsigned long)ancestor, 0, 0, 0) < 0 ? -errno : 0;
}

int os_try_whether_child_reads(void) {
    static volatile uint64_t here = 0x7672616e6765;
    uint64_t there = 0;
    int status;
    /* Without fork handlers and without SIGCHLD: the child makes one system call, and nothing notices it. */
    const pid_t child = (pid_t)syscall(SYS_clone, 0ul, NULL, NULL, NULL, 0ul);
    if (child < 0) return -errno;
    if (child == 0) {
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* if the call kills it, it writes no core dump */
        const struct iovec to = {&there, sizeof there}, from = {(void *)(uintptr_t)&here, sizeof there};
        const ssize_t got = process_vm_readv(getppid(), &to, 1, &from, 1, 0);
        _exit(got == (ssize_t)sizeof there && there == here ? 0 : got < 0 ? errno
                                                                          : ENODATA);
    }
    while (waitpid(child, &status, __WALL) < 0) {
        if (errno != EINTR) return -errno;
    }
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -ENOSYS; /* a sandbox may kill it for the call */
}

bool os_has_filter(void) {
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) > 0; /* refused: the kernel has none */
}

int os_random(void *to, size_t bytes) {
    const ssize_t got = getrandom(to, bytes, GRND_NONBLOCK);
    return got == (ssize_t)bytes ? 0 : got < 0 ? -errno
                                               : -EAGAIN;
}

void *os_map_for_children(size_t bytes) {
    void *address =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}
