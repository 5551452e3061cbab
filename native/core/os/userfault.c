/* System calls: userfaultfd, which reports a touch of a missing page, and puts content in its place. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/os_kept_descriptors.h"
#include "os/os_opening.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than some of the headers that this is built against. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
    uint64_t dst, src, len, mode;
    int64_t move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

int os_userfault_open(os_held *held) {
    const int descriptor =
        os_above_standard((int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
    const int refused = errno;
    os_note(descriptor, NULL, held);
    if (descriptor < 0) return -refused;
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
    const int error = ioctl(descriptor, UFFDIO_API, &api) < 0 ? errno : 0;
    /* Other code may have closed the descriptor and opened a file of its own, which was noted then and must not
     * be closed. No other file than a userfaultfd knows this request. */
    if (error == ENOTTY || error == EBADF || !os_is_held(held)) {
        os_note(-1, NULL, held);
        return -EBADF;
    }
    if (error) os_let_go(held);
    return -error;
}

int os_userfault_register(int descriptor, void *address, size_t bytes) {
    struct uffdio_register request = {
        .range = {.start = (uintptr_t)address, .len = bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    return ioctl(descriptor, UFFDIO_REGISTER, &request) < 0 ? -errno : 0;
}

/* Both calls require that the whole span lies in one mapping, and fail with ENOENT otherwise. An arena is
 * not always one mapping: the kernel does not join neighbours again that have different histories, as
 * after a fork, or if one had been joined with a mapping above the arena. A single page always lies in one
 * mapping. So the seam is found by halving the span. */
static bool spans_mappings(int error, size_t bytes) {
    return error == ENOENT && bytes > os_page_bytes();
}

/* Makes one call; puts zeros if `from` is NULL. Adds to `done`; returns 0 or an errno. */
static int put_some(int descriptor, uintptr_t to, const char *from, size_t bytes, size_t *done) {
    int result;
    int64_t answer; /* the bytes done before an error, or a negative errno */
    if (from) {
        struct uffdio_copy request = {.dst = to, .src = (uintptr_t)from, .len = bytes};
        result = ioctl(descriptor, UFFDIO_COPY, &request);
        answer = request.copy;
    } else {
        struct uffdio_zeropage request = {.range = {.start = to, .len = bytes}};
        result = ioctl(descriptor, UFFDIO_ZEROPAGE, &request);
        answer = request.zeropage;
    }
    const int error = result == 0 ? 0 : errno;
    if (error == 0) *done += bytes;
    else if (answer > 0) *done += (size_t)answer;
    return error;
}

/* A present page keeps its content unless `over_present` asks to overwrite it. */
static int put(int descriptor, char *to, const char *from, size_t bytes, bool over_present) {
    const size_t page = os_page_bytes();
    size_t done = 0, most = bytes;
    while (done < bytes) {
        const size_t wanted = bytes - done < most ? bytes - done : most;
        const int error =
            put_some(descriptor, (uintptr_t)to + done, from ? from + done : NULL, wanted, &done);
        if (error == 0 && most < bytes) most *= 2;
        if (error == 0 || error == EAGAIN || error == EINTR) continue;
        if (spans_mappings(error, wanted)) {
            most = wanted / 2 / page * page;
            continue;
        }
        if (error != EEXIST) return -error;
        /* UFFDIO_COPY neither changes a present page nor marks it dirty again. */
        if (over_present) memcpy(to + done, from + done, page);
        done += page;
    }
    return 0;
}

int os_userfault_copy(int descriptor, void *to, const void *from, size_t bytes) {
    return put(descriptor, to, from, bytes, true);
}

int os_userfault_copy_missing(int descriptor, void *to, const void *from, size_t bytes) {
    return put(descriptor, to, from, bytes, false);
}

int os_userfault_move_huge(int descriptor, void *to, void *from) {
    struct uffdio_move request = {
        .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = OS_HUGE_BYTES};
    return ioctl(descriptor, UFFDIO_MOVE, &request) < 0 ? -errno : 0;
}

int os_userfault_zero(int descriptor, void *address, size_t bytes) {
    return put(descriptor, address, NULL, bytes, false);
}
