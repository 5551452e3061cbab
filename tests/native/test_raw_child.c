/* A child that is made by the system call alone, while threads of its parent hold locks and change ranges. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/gate.h"
#include "check.h"
#include "ranges/arena_state.h"

#define BYTES ((size_t)64 << 10)
#define RESERVE (2 * MIB)
#define RANGES 64u
#define PATIENCE_SECONDS 30 /* of a child: it is ended then */

static vrange_arena *arena;
static vrange_account *account;

/* ---- threads of the parent that are in the midst of something ---------------------------------- */

static _Atomic bool stops, is_there, may_go;

static void stay(void) {
    atomic_store(&is_there, true);
    while (!atomic_load(&may_go)) usleep(500);
}

/* The caretaker offers: it has the reserve's turn, and the ranges are BUSY. */
int __real_os_lazyfree_many(const struct iovec *spans, size_t count);
int __wrap_os_lazyfree_many(const struct iovec *spans, size_t count);

int __wrap_os_lazyfree_many(const struct iovec *spans, size_t count) {
    if (atomic_exchange(&stops, false)) stay();
    return __real_os_lazyfree_many(spans, count);
}

static void *change_arena(void *unused) {
    gate_enter();
    pthread_mutex_lock(&arena->lock);
    stay();
    pthread_mutex_unlock(&arena->lock);
    gate_leave();
    return unused;
}

/* ---- what the child does ------------------------------------------------------------------------ */

static uint64_t kept, handles[RANGES];

static void use(vrange_arena *in, bool has_room) {
    for (uint64_t seed = 1; seed <= 32; seed++) {
        static uint64_t content[BYTES / 8];
        const vrange_part part = {content, BYTES};
        uint64_t handle;
        write_words(content, BYTES, seed);
        const int result = vrange_store(in, &part, 1, 0, 0, &handle);
        CHECK(result == 0 || (!has_room && result < 0));
        if (result < 0) continue;
        CHECK(wrong_words(vrange_address(handle), BYTES, seed) == 0);
        CHECK(vrange_release(handle) == 0);
        if (vrange_pin_whole(handle) != VRANGE_OK) continue;
        CHECK(wrong_words(vrange_address(handle), BYTES, seed) == 0);
        CHECK(vrange_release(handle) == 0);
    }
}

static void child(bool has_room) {
    alarm(PATIENCE_SECONDS);
    for (unsigned i = 0; i < RANGES; i++) {
        const int result = vrange_pin_whole(handles[i]);
        if (result != VRANGE_OK) continue;
        CHECK(wrong_words(vrange_address(handles[i]), BYTES, i + 1) == 0);
        CHECK(vrange_release(handles[i]) == 0);
    }
    CHECK(wrong_words(vrange_address(kept), BYTES, 77) == 0);
    use(arena, has_room);
    vrange_account *own;
    use(open_arena(16 * MIB, &own), true);
    CHECK(vrange_reserve_start(RESERVE, VRANGE_TICK_NS, 1) == 0);
    vrange_reserve_offer(MIB);
    const pid_t grandchild = fork();
    CHECK(grandchild >= 0);
    if (grandchild == 0) {
        use(open_arena(16 * MIB, &own), true);
        _exit(0);
    }
    int status;
    CHECK(waitpid(grandchild, &status, 0) == grandchild);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    vrange_reserve_stop();
    _exit(0);
}

static void clone_now(bool has_room) {
    int status;
    const pid_t pid = (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, NULL, NULL, NULL, 0ul);
    CHECK(pid >= 0);
    if (pid == 0) child(has_room);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- the parent --------------------------------------------------------------------------------- */

static void fill(void) {
    for (unsigned i = 0; i < RANGES; i++) {
        CHECK(vrange_allocate(arena, BYTES, &handles[i]) == 0);
        write_words(vrange_address(handles[i]), BYTES, i + 1);
        CHECK(vrange_release(handles[i]) == 0);
    }
}

static int check_rung(const char *rung) {
    setenv("VRANGE_RUNG", rung, 1);
    const bool offers = vrange_rung() != VRANGE_RUNG_EAGER;
    arena = open_arena(64 * MIB, &account);
    CHECK(vrange_allocate(arena, BYTES, &kept) == 0);
    write_words(vrange_address(kept), BYTES, 77);
    fill();
    for (unsigned i = 0; i < RANGES; i++) CHECK(vrange_discard(handles[i]) == VRANGE_OK);
    clone_now(true); /* and no thread is in the midst of anything */

    fill();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, change_arena, NULL) == 0);
    while (!atomic_load(&is_there)) usleep(500);
    clone_now(false);
    atomic_store(&may_go, true);
    CHECK(pthread_join(thread, NULL) == 0);

    if (offers) {
        atomic_store(&is_there, false);
        atomic_store(&may_go, false);
        atomic_store(&stops, true);
        CHECK(vrange_reserve_start(RESERVE, VRANGE_TICK_NS, 1) == 0);
        while (!atomic_load(&is_there)) usleep(500);
        clone_now(true);
        atomic_store(&may_go, true);
        vrange_reserve_stop();
    }
    /* The children wrote nothing into this process. */
    for (unsigned i = 0; i < RANGES; i++) {
        CHECK(vrange_pin_whole(handles[i]) == VRANGE_OK);
        CHECK(wrong_words(vrange_address(handles[i]), BYTES, i + 1) == 0);
        CHECK(vrange_release(handles[i]) == 0);
    }
    CHECK(wrong_words(vrange_address(kept), BYTES, 77) == 0);
    return 0;
}

int main(void) {
    static const char *const rungs[] = {"refault", "sentinel", "eager"};
    if (vrange_page_bytes() != 4096) return 0; /* the gate is not wiped in children there */
    check_rungs(rungs, 3, check_rung);
    return 0;
}
