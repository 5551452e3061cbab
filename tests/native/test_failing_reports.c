/* Counts, requests and what the kernel reports while calls fail; see failing_calls.h. */
#include "failing_calls.h"

#include "os/os.h"
#include "os/os_thread.h"
#include "os/os_watches.h"

static _Atomic int stage;

static void figures(void) {
    static char text[4096];
    static vrange_account_counters counters[32];
    char where[4096];
    uint64_t start, bottom;
    vrange_accounts_read(counters, 32);
    vrange_segment_path();
    vrange_segment_refusal();
    vrange_segment_keep(1);
    vrange_segment_keep(0);
    for (size_t i = 0; i <= VRANGE_SEGMENT_PLACES; i++) vrange_segment_directory(i, where, sizeof where);
    if (vrange_segment_path()) vrange_segment_is_in_use(vrange_segment_path());
    vrange_process_runs((uint64_t)getppid(), &start, &bottom);
    vrange_process_runs(1, &start, &bottom);
    vrange_resident_bytes();
    vrange_children_can_read();
    vrange_glibc_report(text, sizeof text);
    for (int i = 0; i < VRANGE_ALLOCATORS; i++) {
        if (!vrange_allocator_name(i)) continue;
        vrange_allocator_unused(i);
        vrange_allocator_release(i);
    }
    for (int i = VRANGE_RUNG_EAGER; i <= VRANGE_RUNG_REFAULT; i++) vrange_rung_refusal(i);
}

static void answer(void) {}

static void requests(void) {
    char where[4096];
    vrange_requests_answer(answer);
    if (did(vrange_request_path(where, sizeof where))) {
        const int file = open(where, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file >= 0) close(file);
        vrange_requests_look();
        rest(2);
        vrange_requests_look();
        unlink(where);
    }
    did(vrange_requests_end(50000000));
    vrange_requests_answer(NULL);
}

static void descriptors(void) {
    vrange_descriptor held;
    const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    const int result = vrange_descriptor_note(file, &held);
    if (!did(result)) return;
    CHECK(vrange_descriptor_is_ours(&held) >= 0);
    vrange_descriptor_close(&held);
}

static os_watches watched;

static void *watching_thread(void *unused) {
    char where[200];
    snprintf(where, sizeof where, "%s/watched", directory);
    if (os_watches_begin(&watched) < 0) {
        atomic_store(&stage, 2);
        return unused;
    }
    const bool is_told = did(os_watch_written(&watched, where));
    did(os_watch_v1(&watched, "/sys/fs/cgroup/memory", "memory.usage_in_bytes", "1099511627776"));
    did(os_watch_v1(&watched, "/nowhere", "memory.usage_in_bytes", "1"));
    did(os_watch_notified(&watched, directory, "watched"));
    did(os_watch_written(&watched, "/nowhere"));
    atomic_store(&stage, 1);
    int result = 1;
    while (is_told && result > 0) result = os_watches_wait(&watched);
    CHECK(result >= -4095);
    atomic_store(&stage, 2);
    return unused;
}

/* A thread that waits for what the kernel reports. */
static void watches(void) {
    pthread_t thread;
    char where[200];
    snprintf(where, sizeof where, "%s/watched", directory);
    const int file = open(where, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return;
    atomic_store(&stage, 0);
    if (os_thread_start(&thread, watching_thread, NULL) != 0) return;
    while (atomic_load(&stage) == 0) rest(1);
    if (write(file, "changed", 7) == 7) rest(1);
    for (int i = 0; i < 400 && atomic_load(&stage) != 2; i++) {
        os_watches_end(thread);
        rest(1);
    }
    CHECK(atomic_load(&stage) == 2);
    pthread_join(thread, NULL);
    close(file);
}

static const operation operations[] = {
    {"figures", figures},
    {"requests", requests},
    {"descriptors", descriptors},
    {"watches", watches, .is_first = true},
};

int main(int count, char **arguments) {
    return try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
}
