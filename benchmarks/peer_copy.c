/* The kernel's own copy of BYTES from another process into memory that is allocated for each copy, in ns of time
 * and of processor time: peer_copy BYTES SECONDS PLACES. The copies are of so many places in turn, as hits are of so many values: the
 * processor's caches hold as much of them. What a hit on another process's value can't cost less than. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>

static double now(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int count, char **words) {
    const size_t bytes = count > 1 ? strtoul(words[1], NULL, 10) : 4096;
    const double seconds = count > 2 ? atof(words[2]) : 0.1;
    const size_t places = count > 3 ? strtoul(words[3], NULL, 10) : 1, all = bytes * places;
    char *source = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ready[2];
    char byte;
    if (source == MAP_FAILED || pipe(ready) < 0) return 1;
    const pid_t owner = fork();
    if (owner == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(source, 1, all);
        if (write(ready[1], "r", 1) != 1) return 1;
        for (;;) pause();
    }
    if (owner < 0 || read(ready[0], &byte, 1) != 1) return 1;
    long copies = 0;
    const double begun = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
    double taken;
    while ((taken = now(CLOCK_MONOTONIC) - begun) < seconds) {
        char *to = malloc(bytes);
        const struct iovec local = {to, bytes}, remote = {source + (size_t)copies % places * bytes, bytes};
        if (process_vm_readv(owner, &local, 1, &remote, 1, 0) != (ssize_t)bytes) return 1;
        if (to[0] != 1 || to[bytes - 1] != 1) return 1;
        free(to);
        copies++;
    }
    const double worked = now(CLOCK_PROCESS_CPUTIME_ID) - used;
    kill(owner, SIGKILL);
    waitpid(owner, NULL, 0);
    printf("%.1f %.1f\n", taken / (double)copies * 1e9, worked / (double)copies * 1e9);
    return 0;
}
