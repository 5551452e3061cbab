/* System calls: the stack that the kernel made for the main thread. */
#define _GNU_SOURCE
#include "os/os_main_stack.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

#define MAPS_BYTES_LEAST ((size_t)64 << 10)
#define SIGNAL_SET_BYTES 8 /* what the kernel's own signal set takes */

int os_main_stack(os_main_stack_place *out) {
    size_t bytes = MAPS_BYTES_LEAST;
    char *maps = os_map(bytes);
    int length = -ENOMEM;
    while (maps && (length = os_read_whole("/proc/self/maps", maps, bytes)) == (int)bytes - 1) {
        char *larger = os_map_larger(maps, bytes, 2 * bytes);
        length = -ENOMEM;
        if (!larger) break;
        maps = larger;
        bytes *= 2;
    }
    uintptr_t from, to, end_before = 0;
    char rights[8];
    bool found = false;
    for (char *line = length > 0 ? maps : NULL, *end; line && !found; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        if (end) *end = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s", &from, &to, rights) != 3) continue;
        found = strstr(line, "[stack]") != NULL;
        if (!found) end_before = to;
    }
    if (maps) os_unreserve(maps, bytes);
    if (!found) return length < 0 ? length : -ENOENT;
    *out = (os_main_stack_place){.low = (char *)from,
                                 .top = (char *)to,
                                 .end_below = (char *)end_before,
                                 .is_executable = strchr(rights, 'x') != NULL};
    return 0;
}

uint64_t os_stack_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return (uint64_t)limit.rlim_cur;
}

/* The kernel grows the stack down to an address that is touched. If it must refuse, a touch would end the
 * process, but a system call that reads there only fails. This one reads which signals to block: none, because
 * a page that was never touched is zeros. */
int os_grow_main_stack(char *to) {
    return syscall(SYS_rt_sigprocmask, SIG_BLOCK, to, NULL, SIGNAL_SET_BYTES) < 0 ? -errno : 0;
}

int os_default_thread_stack(size_t bytes) {
    int (*set)(const pthread_attr_t *); /* GNU, since 2.18 */
    *(void **)&set = dlsym(RTLD_DEFAULT, "pthread_setattr_default_np");
    if (!set) return -ENOSYS;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error) return -error;
    error = pthread_attr_setstacksize(&attributes, bytes);
    if (!error) error = set(&attributes);
    pthread_attr_destroy(&attributes);
    return -error;
}
