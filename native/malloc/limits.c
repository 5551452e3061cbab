/* setrlimit and prlimit, which a program calls to limit itself. After an exec the heap is opened within the
 * limit. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vrange.h"

#define PUBLIC __attribute__((visibility("default")))

PUBLIC int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit);
PUBLIC int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit);
PUBLIC int prlimit(pid_t process, __rlimit_resource_t resource, const struct rlimit *limit, struct rlimit *old);
PUBLIC int prlimit64(pid_t process, __rlimit_resource_t resource, const struct rlimit64 *limit,
                     struct rlimit64 *old);

_Static_assert(sizeof(struct rlimit) == sizeof(struct rlimit64), "vrange is for 64-bit machines");

static int set(pid_t process, int resource, const void *limit, void *old) {
    const bool is_space = resource == RLIMIT_AS || resource == RLIMIT_DATA;
    const bool is_own = process == 0 || process == getpid();
    if (limit && is_space && is_own && ((const struct rlimit *)limit)->rlim_cur != RLIM_INFINITY)
        vrange_address_space_return();
    return (int)syscall(SYS_prlimit64, process, resource, limit, old);
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) {
    return set(0, (int)resource, limit, NULL);
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit) {
    return set(0, (int)resource, limit, NULL);
}

int prlimit(pid_t process, __rlimit_resource_t resource, const struct rlimit *limit, struct rlimit *old) {
    return set(process, (int)resource, limit, old);
}

int prlimit64(pid_t process, __rlimit_resource_t resource, const struct rlimit64 *limit, struct rlimit64 *old) {
    return set(process, (int)resource, limit, old);
}
