/* System calls: whether the program's threads have all ended, while one of vrange's is still there.
 *
 * A program may end its main thread and leave the rest to others (pthread_exit). The C library ends the process
 * when the last thread ends. It counts vrange's, too. So vrange's thread has to notice that it is the last one.
 * The C library calls the destructor of thread-specific data when a thread ends, and not when main returns. */
#define _GNU_SOURCE
#include "os/os_thread.h"

#include <stdatomic.h>

#include "os/os.h"

static struct {
    pthread_key_t key; /* has a value in the main thread alone */
    bool has_key;
    _Atomic bool has_ended;
    void (*tell)(void);
} main_thread;

static void end(void *unused) {
    (void)unused;
    atomic_store(&main_thread.has_ended, true);
    if (main_thread.tell) main_thread.tell();
}

static void watch(void) {
    if (main_thread.has_key && os_is_main_thread()) pthread_setspecific(main_thread.key, &main_thread);
}

void os_tell_end_of_main_thread(void (*tell)(void)) { main_thread.tell = tell; }

bool os_main_thread_has_ended(void) {
    return atomic_load_explicit(&main_thread.has_ended, memory_order_relaxed);
}

void os_main_thread_after_fork(void) {
    atomic_store(&main_thread.has_ended, false);
    watch();
}

__attribute__((constructor)) static void begin(void) {
    main_thread.has_key = pthread_key_create(&main_thread.key, end) == 0;
    watch(); /* unless another thread loads this library */
}

/* If this library is unloaded, its function must not be called. */
__attribute__((destructor)) static void forget(void) {
    if (main_thread.has_key) pthread_key_delete(main_thread.key);
    main_thread.has_key = false;
}
