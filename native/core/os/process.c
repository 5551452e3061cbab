/* System calls: the identity of this process, and whether another one is alive. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/os_proc_files.h"
#include "os/os_thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

bool os_process_exists(uint32_t pid) { return kill((pid_t)pid, 0) == 0 || errno != ESRCH; }

uint32_t os_process_id(void) { return (uint32_t)getpid(); }

uint32_t os_user_id(void) { return (uint32_t)geteuid(); }

uint32_t os_process_group(void) { return (uint32_t)getpgrp(); }

static const char *stat_field(const char *at, int from, int to) {
    for (int field = from; at && field < to; field++) {
        at = strchr(at, ' ');
        if (at) at++;
    }
    return at;
}

int os_process_start(uint64_t *ticks, uint64_t *stack) {
    char text[1024];
    int result = os_read_small("/proc/self/stat", text, sizeof text);
    if (result < 0) return result;
    /* The second field is the command's name, which may contain blanks and parentheses. */
    const char *start = stat_field(strrchr(text, ')'), 2, 22);
    const char *bottom = stat_field(start, 22, 28);
    if (!bottom) return -ENODATA;
    *ticks = strtoull(start, NULL, 10);
    *stack = strtoull(bottom, NULL, 10);
    return 0;
}

int os_process_look(uint32_t pid, os_process *out) {
    char path[64], text[1024];
    *out = (os_process){0};
    if (pid == 0 || pid > INT32_MAX) return OS_PROCESS_GONE; /* kill() would address groups */
    snprintf(path, sizeof path, "/proc/%u/stat", (unsigned)pid);
    if (os_read_small(path, text, sizeof text) <= 0)
        return os_process_exists(pid) ? OS_PROCESS_RUNS : OS_PROCESS_GONE;
    const char *state = stat_field(strrchr(text, ')'), 2, 3), *parent = stat_field(state, 3, 4),
               *threads = stat_field(parent, 4, 20), *start = stat_field(threads, 20, 22),
               *stack = stat_field(start, 22, 28);
    if (!stack) return OS_PROCESS_RUNS;
    /* A zombie whose main thread ended may have others that go on. */
    const bool has_ended = *state == 'X' || (*state == 'Z' && strtoull(threads, NULL, 10) <= 1);
    if (has_ended) return OS_PROCESS_GONE;
    out->parent = (uint32_t)strtoull(parent, NULL, 10);
    out->start_ticks = strtoull(start, NULL, 10);
    out->stack_start = strtoull(stack, NULL, 10);
    return *state == 'T' || *state == 't' ? OS_PROCESS_STOPPED : OS_PROCESS_RUNS;
}

int os_threads(void) {
    struct stat found;
    /* Each directory in it has a link to it. To read a file would need a descriptor, and in a thread that reads
     * apart one more thread. */
    return stat("/proc/self/task", &found) < 0 ? -errno : (int)found.st_nlink - 2;
}

int os_process_state(uint32_t pid, uint64_t start_ticks) {
    os_process found;
    const int state = os_process_look(pid, &found);
    const bool is_another = found.start_ticks && found.start_ticks != start_ticks;
    return is_another ? OS_PROCESS_GONE : state;
}

bool os_process_descends(uint32_t pid, uint32_t ancestor) {
    os_process found;
    /* Bounded, because the tree may change meanwhile. */
    for (int i = 0; i < 256 && pid; i++, pid = found.parent) {
        if (pid == ancestor) return true;
        if (os_process_look(pid, &found) == OS_PROCESS_GONE) return false;
    }
    return false;
}

ssize_t os_read_parts(uint32_t pid, const struct iovec *to, size_t to_count, const struct iovec *from,
                      size_t from_count) {
    const ssize_t got = process_vm_readv((pid_t)pid, to, to_count, from, from_count, 0);
    return got < 0 ? -errno : got;
}

uint64_t os_process_namespace(void) {
    struct stat found;
    return stat("/proc/self/ns/pid", &found) < 0 ? 0 : (uint64_t)found.st_ino;
}

void os_command(char *name, size_t bytes) {
    memset(name, 0, bytes);
    const int length = os_read_small("/proc/self/comm", name, bytes);
    name[length > 0 && name[length - 1] == '\n' ? length - 1 : 0] = 0;
}

int os_anonymous_bytes(uint64_t *bytes) {
    char text[128], *at;
    int result = os_proc_text(OS_STATM, text, sizeof text);
    if (result < 0) return result;
    strtoull(text, &at, 10); /* skip the address space */
    const uint64_t resident = strtoull(at, &at, 10), of_files = strtoull(at, NULL, 10);
    *bytes = (resident > of_files ? resident - of_files : 0) * os_page_bytes();
    return 0;
}

int os_resident_set(uint64_t *bytes) {
    char text[128], *at;
    int result = os_proc_text(OS_STATM, text, sizeof text);
    if (result < 0) return result;
    strtoull(text, &at, 10); /* skip the address space */
    *bytes = strtoull(at, NULL, 10) * os_page_bytes();
    return 0;
}

int os_address_space(uint64_t *bytes, uint64_t *data) {
    char text[128], *at;
    int result = os_proc_text(OS_STATM, text, sizeof text);
    if (result < 0) return result;
    *bytes = strtoull(text, &at, 10) * os_page_bytes();
    for (int field = 1; field < 5; field++) strtoull(at, &at, 10); /* skip resident, shared, text and lib */
    *data = strtoull(at, NULL, 10) * os_page_bytes();
    return 0;
}

uint64_t os_address_space_bytes(void) {
    /* The kernel puts a program's first stack at the top, and these bytes into it. */
    const uint64_t top = (uint64_t)getauxval(AT_RANDOM);
    uint64_t bytes = (uint64_t)1 << 32;
    while (bytes < top) bytes *= 2;
    return bytes;
}
