/* Reads the memory of another process; see peer.h. */
#include "peers/peer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/rung.h"
#include "os/os.h"
#include "vrange.h"

typedef struct {
    uint64_t words[2]; /* random */
    uint64_t started;
} proof_page;

static struct {
    proof_page *_Atomic proof; /* no child inherits its content */
    _Atomic uint32_t readers; /* the process that this one has named to the kernel; 0: none yet */
    _Atomic bool said_refused;
} self;

#define READERS_NOT_ASKED UINT32_MAX /* the kernel does not want to be asked */

/* ---- this process ----------------------------------------------------------------------------- */

static proof_page *make_proof(void) {
    const size_t page = os_page_bytes();
    proof_page *fresh = os_map(page), *none = NULL;
    uint64_t stack;
    if (!fresh) return NULL;
    const bool is_made = os_wipe_on_fork(fresh, page) == 0 && os_process_start(&fresh->started, &stack) == 0 &&
                         os_random(fresh->words, sizeof fresh->words) == 0;
    if (is_made && atomic_compare_exchange_strong(&self.proof, &none, fresh)) return fresh;
    os_unreserve(fresh, page);
    return none; /* that of another thread, which was first */
}

int peer_self(peer *out) {
    const proof_page *proof = atomic_load(&self.proof);
    if (!proof) proof = make_proof();
    /* Zeros: this process was made without fork handlers. */
    if (!proof || !proof->started) return -ENOTSUP;
    rung_signs signs;
    rung_find_signs(&signs);
    *out = (peer){.pid = os_process_id(),
                  .started = proof->started,
                  .proof_at = proof->words,
                  .proof = {proof->words[0], proof->words[1]},
                  .canary = vrange_rung() == VRANGE_RUNG_REFAULT ? signs.canary : NULL};
    return 0;
}

static bool has_ended(uint32_t pid) {
    os_process found;
    return os_process_look(pid, &found) == OS_PROCESS_GONE;
}

/* Two threads may name processes at once. So after its call each one looks which is noted, and the last call is
 * for that one. There is no lock, because another thread may fork meanwhile. */
static void name_readers(uint32_t pid, uint32_t before) {
    for (;;) {
        const int result = os_let_read(pid);
        uint32_t noted = pid;
        if (result < 0) { /* others that are refused say so */
            const uint32_t instead = result == -ENOTSUP ? READERS_NOT_ASKED : before;
            atomic_compare_exchange_strong(&self.readers, &noted, instead);
            return;
        }
        noted = atomic_load(&self.readers);
        if (noted == pid || noted == 0 || noted == READERS_NOT_ASKED) return;
        pid = noted;
    }
}

void peer_let_read(peer_readers who) {
    const uint32_t wanted = who == PEER_GROUP ? os_process_group() : os_process_id();
    if (wanted == 0) return; /* a leader outside this PID namespace; and 0 would take the grant away */
    uint32_t named = atomic_load(&self.readers);
    do {
        if (named == READERS_NOT_ASKED || named == wanted) return;
        if (named && !has_ended(named)) {
            if (os_process_descends(wanted, named)) return;  /* they may read already */
            if (!os_process_descends(named, wanted)) return; /* it would take from those that may */
        }
    } while (!atomic_compare_exchange_strong(&self.readers, &named, wanted));
    name_readers(wanted, named);
}

int vrange_children_can_read(void) {
    peer_let_read(PEER_CHILDREN);
    return os_try_whether_child_reads();
}

void peer_after_fork(void) {
    proof_page *inherited = atomic_exchange(&self.proof, NULL);
    if (inherited) os_unreserve(inherited, os_page_bytes());
    atomic_store(&self.readers, 0);
    atomic_store(&self.said_refused, false);
}

/* ---- another process -------------------------------------------------------------------------- */

static int refused(const peer *owner, ssize_t error) {
    /* A later process with the same number may belong to another user. */
    if (os_process_state(owner->pid, owner->started) == OS_PROCESS_GONE) return PEER_OVER;
    if (atomic_exchange(&self.said_refused, true)) return PEER_REFUSED;
    char text[256];
    const int length = snprintf(text, sizeof text,
                                "vrange: process %u may not read the memory of process %u, which has cached "
                                "values for it (%s); such values are computed again. `vrange doctor` says "
                                "what to change\n",
                                os_process_id(), owner->pid, strerror((int)-error));
    if (length > 0 && (size_t)length < sizeof text) os_complain(text, (size_t)length);
    return PEER_REFUSED;
}

static int outcome_of(const peer *owner, ssize_t error) {
    if (error == -ESRCH) return PEER_OVER;
    if (error == -EPERM || error == -EACCES || error == -ENOSYS) return refused(owner, error);
    return PEER_LOST;
}

static bool has_proof(const peer *owner, const uint64_t proof[2]) {
    return proof[0] == owner->proof[0] && proof[1] == owner->proof[1];
}

int peer_check(const peer *owner) {
    uint64_t proof[2] = {0};
    const struct iovec to = {proof, sizeof proof}, from = {(void *)(uintptr_t)owner->proof_at, sizeof proof};
    const ssize_t got = os_read_parts(owner->pid, &to, &from, 1);
    if (got < 0 && got != -EFAULT) return outcome_of(owner, got);
    return got == (ssize_t)sizeof proof && has_proof(owner, proof) ? PEER_READ : PEER_OVER;
}

static int read_some(const peer *owner, const char *from, char *to, size_t bytes) {
    uint64_t proof[2] = {0};
    char canary;
    const struct iovec here[] = {{to, bytes}, {proof, sizeof proof}, {&canary, sizeof canary}};
    const struct iovec there[] = {{(void *)(uintptr_t)from, bytes},
                                  {(void *)(uintptr_t)owner->proof_at, sizeof proof},
                                  {(void *)(uintptr_t)owner->canary, sizeof canary}};
    const ssize_t got = os_read_parts(owner->pid, here, there, owner->canary ? 3 : 2);
    if (got < 0 && got != -EFAULT) return outcome_of(owner, got);
    if (got > 0 && (size_t)got == bytes + sizeof proof) return has_proof(owner, proof) ? PEER_READ : PEER_OVER;
    const int is_there = peer_check(owner);
    return is_there == PEER_READ ? PEER_LOST : is_there;
}

int peer_copy(const peer *owner, const void *from, void *to, size_t bytes) {
    int result = PEER_READ;
    for (size_t done = 0; done < bytes && result == PEER_READ; done += OS_READ_PARTS_MOST) {
        const size_t some = bytes - done < OS_READ_PARTS_MOST ? bytes - done : OS_READ_PARTS_MOST;
        result = read_some(owner, (const char *)from + done, (char *)to + done, some);
    }
    return result;
}
