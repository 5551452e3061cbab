/* Who may read this process where Yama's ptrace_scope is 1: the kernel keeps one process whose descendants may, and
 * no call takes that from those that another call has let read. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "os/os.h"
#include "peers/peer.h"

static pid_t named; /* as the kernel would keep it */
static int refusal;

int __real_os_read_small(const char *path, char *text, size_t bytes);
int __wrap_os_read_small(const char *path, char *text, size_t bytes);
int __wrap_os_read_small(const char *path, char *text, size_t bytes) {
    if (strcmp(path, "/proc/sys/kernel/yama/ptrace_scope")) return __real_os_read_small(path, text, bytes);
    strcpy(text, "1\n");
    return 2;
}

int __wrap_prctl(int option, ...);
int __wrap_prctl(int option, ...) {
    unsigned long with[4];
    va_list more;
    va_start(more, option);
    for (int i = 0; i < 4; i++) with[i] = va_arg(more, unsigned long);
    va_end(more);
    if (option != PR_SET_PTRACER) return (int)syscall(SYS_prctl, option, with[0], with[1], with[2], with[3]);
    if (refusal) {
        errno = refusal;
        return -1;
    }
    named = (pid_t)with[0];
    return 0;
}

#define IN_PROCESS(pid, ...)  \
    const pid_t pid = fork(); \
    CHECK(pid >= 0);          \
    if (pid == 0) {           \
        named = 0;            \
        __VA_ARGS__;          \
        _exit(0);             \
    }

static void wait_for(pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void join(void) {
    char path[128];
    vrange_shared *index;
    snprintf(path, sizeof path, "/dev/shm/vrange-test-readers-%d", getpid());
    CHECK(vrange_shared_open(path, 64, 64, &index) == 0);
    CHECK(vrange_shared_join(index) == 0);
    vrange_shared_leave(index);
    unlink(path);
}

/* This process leads the group of those that it forks. */

static void test_a_member_that_forks_does_not_shut_out_its_siblings(void) {
    IN_PROCESS(member, {
        join();
        CHECK(named == getppid());
        vrange_children_can_read();
        CHECK(named == getppid());
        IN_PROCESS(child, {
            peer_let_read(PEER_CHILDREN);
            CHECK(named == getpid()); /* the parent's grant is not inherited */
        });
        wait_for(child);
        CHECK(named == getppid());
    });
    wait_for(member);
}

static void test_a_process_that_has_forked_lets_its_siblings_read_once_it_is_a_member(void) {
    IN_PROCESS(member, {
        peer_let_read(PEER_CHILDREN);
        CHECK(named == getpid());
        join();
        CHECK(named == getppid());
    });
    wait_for(member);
}

static void test_children_may_read_where_the_leader_is_no_ancestor(void) {
    IN_PROCESS(other, pause());
    CHECK(setpgid(other, other) == 0);
    IN_PROCESS(member, {
        CHECK(setpgid(0, other) == 0); /* as in a pipeline of a shell */
        peer_let_read(PEER_CHILDREN);
        peer_let_read(PEER_GROUP);
        CHECK(named == getpid());
    });
    wait_for(member);
    IN_PROCESS(second, {
        CHECK(setpgid(0, other) == 0);
        peer_let_read(PEER_GROUP);
        peer_let_read(PEER_CHILDREN);
        CHECK(named == other);
    });
    wait_for(second);
    kill(other, SIGKILL);
    CHECK(waitpid(other, NULL, 0) == other);
}

static void test_the_grant_of_a_leader_that_has_ended_is_given_anew(void) {
    int ends[2];
    char done = 0;
    CHECK(pipe(ends) == 0);
    IN_PROCESS(leader, {
        CHECK(setpgid(0, 0) == 0);
        const pid_t above = getpid();
        int begun[2];
        CHECK(pipe(begun) == 0);
        IN_PROCESS(member, {
            peer_let_read(PEER_GROUP);
            CHECK(named == above);
            CHECK(write(begun[1], "1", 1) == 1);
            while (getppid() == above) usleep(1000);
            peer_let_read(PEER_CHILDREN);
            CHECK(named == getpid());
            CHECK(write(ends[1], "1", 1) == 1);
        });
        CHECK(member && read(begun[0], &done, 1) == 1);
    });
    wait_for(leader);
    close(ends[1]);
    CHECK(read(ends[0], &done, 1) == 1);
    close(ends[0]);
}

static void test_a_refusal_leaves_what_was_granted(void) {
    IN_PROCESS(member, {
        peer_let_read(PEER_CHILDREN);
        refusal = EINVAL;
        peer_let_read(PEER_GROUP);
        CHECK(named == getpid());
        refusal = 0;
        peer_let_read(PEER_GROUP);
        CHECK(named == getppid());
    });
    wait_for(member);
}

int main(void) {
    CHECK(setpgid(0, 0) == 0 || getpgrp() == getpid());
    test_a_member_that_forks_does_not_shut_out_its_siblings();
    test_a_process_that_has_forked_lets_its_siblings_read_once_it_is_a_member();
    test_children_may_read_where_the_leader_is_no_ancestor();
    test_the_grant_of_a_leader_that_has_ended_is_given_anew();
    test_a_refusal_leaves_what_was_granted();
    return 0;
}
