/* The userfaultfd was closed while another process still has it, and madvise is refused from then on: what is missing
 * still faults, though the kernel does not tell. A pin returns memory that can be written all the same. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "fork_support.h"

/* The linker puts these in place of the core's. */
static bool is_refused;

int __real_os_populate(void *address, size_t bytes);
int __wrap_os_populate(void *address, size_t bytes);
int __wrap_os_populate(void *address, size_t bytes) {
    return is_refused ? -EPERM : __real_os_populate(address, bytes);
}

int __real_vrange_os_discard(void *address, size_t bytes);
int __wrap_vrange_os_discard(void *address, size_t bytes);
int __wrap_vrange_os_discard(void *address, size_t bytes) {
    return is_refused ? -EPERM : __real_vrange_os_discard(address, bytes);
}

static int close_userfaults(void) {
    int closed = 0;
    for (int number = 3; number < 4096; number++) {
        char path[64], link[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", number);
        if (readlink(path, link, sizeof link - 1) > 0 && strstr(link, "userfaultfd")) closed += close(number) == 0;
    }
    return closed;
}

int main(void) {
    if (vrange_rung() != VRANGE_RUNG_REFAULT) return 0;
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t handles[4];
    for (uint64_t i = 0; i < 4; i++) {
        handles[i] = filled(arena, BYTES, i);
        CHECK(vrange_release(handles[i]) == VRANGE_OK && vrange_discard(handles[i]) == VRANGE_OK);
    }
    /* Without fork handlers, which would close its copy. */
    const pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0ul);
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    CHECK(close_userfaults() > 0);
    is_refused = true;
    for (uint64_t i = 0; i < 4; i++) {
        CHECK(vrange_pin(handles[i]) == VRANGE_PURGED);
        CHECK(is_zero(vrange_address(handles[i]), BYTES));
        write_words(vrange_address(handles[i]), BYTES, i);
        CHECK(has(handles[i], BYTES, i));
    }
    CHECK(vrange_rung() == VRANGE_RUNG_EAGER);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    return 0;
}
