/* System calls: opening files; see os_opening.h. */
#define _GNU_SOURCE
#include "os/os_opening.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int os_above_standard(int descriptor) {
    if (descriptor < 0 || descriptor > STDERR_FILENO) return descriptor;
    const int above = fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    const int error = errno;
    close(descriptor);
    errno = error;
    return above;
}

int os_open_file(const char *path, int flags, unsigned mode) {
    return os_above_standard(open(path, flags | O_CLOEXEC, mode));
}
