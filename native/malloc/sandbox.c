/* prctl, by which a program gives up rights before a filter restricts its system calls (seccomp).
 *
 * A filter may kill a process for a call that it does not know, and vrange makes calls that glibc's malloc does
 * not make: it starts a thread, which reads files, and it offers memory. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "malloc/step_aside.h"

#define WORDS 4

__attribute__((visibility("default"))) int prctl(int option, ...) {
    unsigned long words[WORDS];
    va_list given;
    va_start(given, option);
    for (int i = 0; i < WORDS; i++) words[i] = va_arg(given, unsigned long);
    va_end(given);
    if (option == PR_SET_SECCOMP || (option == PR_SET_NO_NEW_PRIVS && words[0])) malloc_step_aside();
    return (int)syscall(SYS_prctl, option, words[0], words[1], words[2], words[3]);
}
