/* System calls: a thread with a table of descriptors of its own; see os_apart.h. */
#define _GNU_SOURCE
#include "os/os_apart.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os_thread.h"
#include "os/os_watches.h"

typedef struct {
    void (*function)(void *context);
    void *context;
} act;

static _Thread_local bool reads_apart;

void os_read_apart(void) { reads_apart = true; }

bool os_reads_apart(void) { return reads_apart; }

static void *run(void *given) {
    const act *one = given;
    os_thread_name("vrange-files");
    /* If a sandbox refuses this, the function opens files as it would have in the calling thread. */
    (void)os_own_descriptors();
    one->function(one->context);
    return NULL;
}

void os_apart(void (*function)(void *context), void *context) {
    act one = {function, context};
    pthread_t thread;
    if (os_thread_start(&thread, run, &one) == 0) pthread_join(thread, NULL);
    else function(context);
}
