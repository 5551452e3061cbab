/* Uses a pthread key. Its destructor also runs for a daemon thread that ends inside a deep call because
 * the interpreter ends. */
#include "stacks/thread_end.h"

#include <pthread.h>
#include <stddef.h>

#define HANDLERS_MOST 4

static pthread_key_t at_thread_end;
static void (*handlers[HANDLERS_MOST])(void);

void thread_end_register(void (*handler)(void)) {
    for (size_t i = 0; i < HANDLERS_MOST; i++) {
        if (handlers[i]) continue;
        handlers[i] = handler;
        return;
    }
}

static void end_thread(void *unused) {
    (void)unused;
    for (size_t i = 0; i < HANDLERS_MOST && handlers[i]; i++) handlers[i]();
}

int thread_end_watch(void) { return -pthread_setspecific(at_thread_end, &at_thread_end); }

__attribute__((constructor)) static void make_key(void) {
    /* Fails only if the process has used up its keys. Then no thread can be watched. */
    if (pthread_key_create(&at_thread_end, end_thread) != 0) at_thread_end = (pthread_key_t)-1;
}
