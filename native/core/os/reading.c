/* System calls: reading open files. kept_descriptors.c keeps files open; files.c reads files by name. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/os_opening.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int os_open_to_read(const char *path, int *descriptor) {
    int fd = os_open_file(path, O_RDONLY | O_NONBLOCK, 0); /* a pipe must not block */
    if (fd < 0) return -errno;
    *descriptor = fd;
    return 0;
}

int os_read_at(int descriptor, void *to, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t some = pread(descriptor, (char *)to + done, bytes - done, (off_t)(offset + done));
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return -errno;
        if (some == 0) return -ENODATA;
        done += (size_t)some;
    }
    return 0;
}

int os_number_in(const char *text, uint64_t *value) {
    uint64_t number = 0;
    size_t i = 0;
    for (; text[i] >= '0' && text[i] <= '9'; i++) {
        const uint64_t digit = (uint64_t)(text[i] - '0');
        /* One that does not fit is as good as no limit; wrapped around, it would be a small one. */
        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
    }
    if (i == 0) return -EINVAL;
    *value = number;
    return 0;
}

int os_read_text(int descriptor, char *text, size_t bytes) {
    ssize_t length;
    do length = pread(descriptor, text, bytes - 1, 0);
    while (length < 0 && errno == EINTR);
    if (length < 0) return -errno;
    text[length] = 0;
    return (int)length;
}
