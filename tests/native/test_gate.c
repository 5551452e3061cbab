/* A child that is made by the system call alone, without fork handlers, passes the gate. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/gate.h"
#include "check.h"

#define PATIENCE_SECONDS 20 /* of the child: it is ended then */

static _Atomic bool is_there, may_go;

static void *stay_inside(void *unused) {
    gate_enter();
    atomic_store(&is_there, true);
    while (!atomic_load(&may_go)) usleep(500);
    gate_leave();
    return unused;
}

static void *keep_closed(void *unused) {
    gate_close();
    atomic_store(&is_there, true);
    while (!atomic_load(&may_go)) usleep(500);
    gate_open();
    return unused;
}

static void passes_while(void *(*other)(void *)) {
    pthread_t thread;
    int status;
    atomic_store(&is_there, false);
    atomic_store(&may_go, false);
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    while (!atomic_load(&is_there)) usleep(500);
    const pid_t child = (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, NULL, NULL, NULL, 0ul);
    CHECK(child >= 0);
    if (child == 0) {
        alarm(PATIENCE_SECONDS);
        gate_enter();
        gate_leave();
        gate_close();
        gate_open();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    atomic_store(&may_go, true);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(void) {
    if (vrange_page_bytes() != 4096) return 0; /* the count of those inside is not wiped there */
    passes_while(stay_inside);
    passes_while(keep_closed);
    return 0;
}
