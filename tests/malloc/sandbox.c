/* A program that restricts its system calls to those of glibc's malloc; test_sandbox.py runs it. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check_block.h"

static void *volatile hidden; /* from the compiler, which would leave out a block that nobody uses */

static void restrict_calls(void) {
    static const int allowed[] = {SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_futex,
                                  SYS_write, SYS_exit_group};
    enum { COUNT = sizeof allowed / sizeof *allowed };
    struct sock_filter filter[COUNT + 3] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int i = 0; i < COUNT; i++)
        filter[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], COUNT - i, 0);
    filter[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {COUNT + 3, filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) _exit(77);
}

int main(int count, char **words) {
    char *before[20];
    for (int i = 0; i < 20; i++) CHECK(memset(before[i] = malloc((i + 1) * 100 * KIB), 1, 100 * KIB));
    if (count > 1 && strcmp(words[1], "freed") == 0) {
        free(before[19]);
        before[19] = NULL;
    }
    restrict_calls();
    for (int round = 0; round < 3; round++) {
        for (size_t i = 1; i < 20; i++) {
            hidden = calloc(i, MIB);
            CHECK(hidden && ((char *)hidden)[i * MIB - 1] == 0);
            hidden = realloc(hidden, i * 3 * MIB);
            CHECK(hidden);
            free(hidden);
        }
        for (int i = 0; i < 19; i++) {
            CHECK(malloc_usable_size(before[i]) >= (i + 1) * 100 * KIB);
            if (round == 0) CHECK((before[i] = realloc(before[i], (i + 1) * 150 * KIB)) && before[i][100 * KIB - 1] == 1);
            if (round == 1) CHECK((before[i] = realloc(before[i], (i + 1) * 100 * KIB)) && before[i][100 * KIB - 1] == 1);
        }
    }
    for (int i = 0; i < 20; i++) free(before[i]);
    _exit(0);
}
