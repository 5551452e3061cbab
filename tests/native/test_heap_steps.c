/* A trim of much memory is made in steps, and who waits for a block gets it before the next one. Who waits may get
 * no processor for long. The thread that trims does not look for it again and again: each look would take the processor
 * from a thread that works, and leave it to another one.
 *
 * os_discard is replaced (--wrap), so that the test is inside of each step, whatever the machine does at the
 * time: there it has another thread ask for a block, and before the next it looks whether that has one. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "heap/heap.h"
#include "heap/heap_state.h"
#include "os/os.h"
#include "os/os_thread.h"

#define LARGE_BYTES (128 * MIB)
#define SMALL_BYTES MIB
#define STEP_BYTES_MOST (4 * MIB)
#define STEP_NS 5000000u /* in which the other thread comes to wait */
#define WAIT_NS_LEAST 500000u

static _Atomic uint64_t asked, served;
static _Atomic bool watched, over;
static uint64_t steps, served_in_time; /* of the thread that trims */

int __real_vrange_os_discard(void *address, size_t bytes);
int __wrap_vrange_os_discard(void *address, size_t bytes);

int __wrap_vrange_os_discard(void *address, size_t bytes) {
    if (atomic_load(&watched)) {
        CHECK(bytes <= STEP_BYTES_MOST);
        const bool in_time = atomic_load(&served) == atomic_load(&asked);
        if (steps++) served_in_time += in_time;
        if (in_time) atomic_fetch_add(&asked, 1);
        os_sleep_ns(STEP_NS);
    }
    return __real_vrange_os_discard(address, bytes);
}

static void *ask_when_told(void *unused) {
    (void)unused;
    while (!atomic_load(&over)) {
        if (atomic_load(&served) == atomic_load(&asked)) {
            os_sleep_ns(STEP_NS / 100);
            continue;
        }
        size_t stale;
        void *block = heap_allocate(SMALL_BYTES, &stale);
        CHECK(block);
        atomic_fetch_add(&served, 1);
        heap_free(block);
    }
    return NULL;
}

static void does_not_look_again_and_again(void) {
    heap_zone *zone = &heap.zones[HEAP_PAGES];
    atomic_fetch_add(&zone->waiting, 1); /* a thread that gets no processor */
    const uint64_t before = os_thread_waits(), start = os_now_ns();
    heap_let_others_in(zone);
    const uint64_t waits = os_thread_waits() - before, waited_ns = os_now_ns() - start;
    atomic_fetch_sub(&zone->waiting, 1);
    CHECK(waited_ns >= WAIT_NS_LEAST);
    CHECK(waits <= 2);
}

int main(void) {
    pthread_t thread;
    size_t stale;
    CHECK(heap_open("numpy") == 0);
    char *block = heap_allocate(LARGE_BYTES, &stale);
    CHECK(block);
    memset(block, 1, LARGE_BYTES);
    heap_free(block);
    CHECK(pthread_create(&thread, NULL, ask_when_told, NULL) == 0);
    atomic_store(&watched, true);
    CHECK(vrange_heap_trim() >= LARGE_BYTES / 2); /* of the rest the kernel may have been told before */
    atomic_store(&watched, false);
    atomic_store(&over, true);
    CHECK(pthread_join(thread, NULL) == 0);
    printf("heap: a trim of %llu steps, %llu blocks between two of them\n", (unsigned long long)steps,
           (unsigned long long)served_in_time);
    CHECK(steps >= LARGE_BYTES / STEP_BYTES_MOST / 2);
    CHECK(served_in_time >= steps / 2); /* a busy machine may have no processor for it in time */
    does_not_look_again_and_again();
    return 0;
}
