/* Requests of other processes of this user: whether there is one, and a thread for the answer.
 *
 * A request is a file beside the stats segment, so it needs no descriptor, no signal and no thread of this
 * process until it is made. It is not a word in the segment, although that would take no system call to look
 * at: opening the segment for writing breaks the lease by which others find out whether a process still has it
 * (os_is_in_use), and the kernel tells the holder of a lease by SIGIO, which ends a process that does not
 * expect it.
 *
 * The answer is Python's (_counters/requests.py), which takes the file. The caretaker must not wait for the
 * GIL, so a thread of its own calls Python. */
#define _GNU_SOURCE
#include "counters/requests.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/gate.h"
#include "counters/segment.h"
#include "os/os.h"
#include "os/os_thread.h"

#define LOOK_NS 100000000u
#define END_LOOK_NS 1000000u

static struct {
    void (*_Atomic answer)(void);
    _Atomic uint64_t not_before_ns;
    _Atomic bool is_answering;
} requests;

int vrange_request_path(char *path, size_t bytes) {
    const char *segment = segment_path();
    const char *ending = segment ? strrchr(segment, '.') : NULL;
    if (!ending) return -ENOENT;
    const int length = snprintf(path, bytes, "%.*s" VRANGE_REQUEST_ENDING, (int)(ending - segment), segment);
    return length < (int)bytes ? 0 : -ENAMETOOLONG;
}

static void *answer(void *unused) {
    (void)unused;
    os_thread_name("vrange-request");
    void (*function)(void) = atomic_load(&requests.answer);
    if (function) function();
    atomic_store(&requests.is_answering, false);
    return NULL;
}

void requests_look(void) {
    char path[VRANGE_PATH_BYTES];
    if (!atomic_load(&requests.answer)) return;
    const uint64_t now = os_now_coarse_ns();
    if (now < atomic_load(&requests.not_before_ns)) return;
    atomic_store(&requests.not_before_ns, now + LOOK_NS);
    if (vrange_request_path(path, sizeof path) < 0 || !os_exists(path)) return;
    if (atomic_exchange(&requests.is_answering, true)) return;
    pthread_t thread;
    /* Without a thread the file stays, and the next look tries again. */
    if (os_thread_start(&thread, answer, NULL) != 0) atomic_store(&requests.is_answering, false);
    else pthread_detach(thread);
}

void requests_after_fork(void) { atomic_store(&requests.is_answering, false); }

/* ---- for Python ------------------------------------------------------------------------------- */

void vrange_requests_look(void) {
    gate_enter();
    requests_look();
    gate_leave();
}

void vrange_requests_answer(void (*function)(void)) { atomic_store(&requests.answer, function); }

int vrange_requests_end(uint64_t wait_ns) {
    const uint64_t deadline = os_now_ns() + wait_ns;
    atomic_store(&requests.answer, NULL);
    while (atomic_load(&requests.is_answering) && os_now_ns() < deadline) os_sleep_ns(END_LOOK_NS);
    return atomic_load(&requests.is_answering) ? -ETIMEDOUT : 0;
}
