/* Reads the memory of another process; see peer.h. */
#define _GNU_SOURCE
#include "peers/peer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
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
    _Atomic int sandbox;
    bool is_off; /* VRANGE_PEERS */
} self;

enum { SANDBOX_UNKNOWN,
       SANDBOX_SPARES,
       SANDBOX_KILLS };

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
    const int rung = vrange_rung();
    rung_find_signs(&signs);
    *out = (peer){.pid = os_process_id(),
                  .started = proof->started,
                  .proof_at = (uint64_t)proof->words,
                  .proof = {proof->words[0], proof->words[1]},
                  .sign_at = (uint64_t)signs.sign,
                  .rung = (uint32_t)rung,
                  .mends = rung_mends(),
                  .canary_at = rung == VRANGE_RUNG_REFAULT ? (uint64_t)signs.canary : 0};
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
    atomic_store(&self.sandbox, SANDBOX_UNKNOWN); /* children often get a filter of their own */
}

/* ---- another process -------------------------------------------------------------------------- */

static int outcome_of(const peer *owner, ssize_t error) {
    if (error == -ESRCH) return PEER_OVER;
    if (error != -EPERM && error != -EACCES && error != -ENOSYS) return PEER_LOST;
    /* A later process with the same number may belong to another user. */
    return os_process_state(owner->pid, owner->started) == OS_PROCESS_GONE ? PEER_OVER : PEER_REFUSED;
}

static bool has_proof(const peer *owner, const uint64_t proof[2]) {
    return proof[0] == owner->proof[0] && proof[1] == owner->proof[1];
}

/* The parts of one call, in the order in which they are copied. */
typedef struct {
    struct iovec here[8], there[8];
    size_t here_count, there_count, bytes;
} parts;

static void take(parts *all, uint64_t address, size_t bytes) {
    all->there[all->there_count++] = (struct iovec){(void *)(uintptr_t)address, bytes};
    all->bytes += bytes;
}

static void put(parts *all, void *to, size_t bytes) {
    all->here[all->here_count++] = (struct iovec){to, bytes};
}

static void copy(parts *all, void *to, uint64_t address, size_t bytes) {
    take(all, address, bytes);
    put(all, to, bytes);
}

static ssize_t read_parts(const peer *owner, const parts *all) {
    return os_read_parts(owner->pid, all->here, all->here_count, all->there, all->there_count);
}

/* The content was not read. Returns why. */
static int look_for_reason(const peer *owner, peer_content *c, ssize_t got) {
    uint64_t proof[2] = {0};
    parts all = {0};
    copy(&all, proof, owner->proof_at, sizeof proof);
    if (got >= 0 || got == -EFAULT) got = read_parts(owner, &all);
    if (got < 0 && got != -EFAULT) {
        c->error = (int)got;
        return outcome_of(owner, got);
    }
    return got == (ssize_t)all.bytes && has_proof(owner, proof) ? PEER_LOST : PEER_OVER;
}

/* Reads `bytes` of the content from this place on. `head_bytes` of them go to the head. */
static int read_some(const peer *owner, peer_content *c, size_t done, size_t head_bytes, size_t bytes) {
    uint64_t before = 0, after = 0, proof[2] = {0};
    rung_sign sign = {0};
    char canary;
    const bool has_canary = owner->canary_at != 0;
    char *to = (char *)c->to + (done ? done - c->head_bytes : 0);
    parts all = {0};
    if (c->word_at) copy(&all, &before, c->word_at, sizeof before);
    take(&all, c->from + done, bytes);
    if (head_bytes) put(&all, c->head, head_bytes);
    if (bytes > head_bytes) put(&all, to, bytes - head_bytes);
    if (c->word_at) copy(&all, &after, c->word_at, sizeof after);
    copy(&all, proof, owner->proof_at, sizeof proof);
    copy(&all, &sign, owner->sign_at, sizeof sign);
    const size_t expected = all.bytes;
    if (has_canary) copy(&all, &canary, owner->canary_at, sizeof canary);
    const ssize_t got = read_parts(owner, &all);
    if (got < 0 || (size_t)got != expected) return look_for_reason(owner, c, got);
    if (!has_proof(owner, proof)) return PEER_OVER;
    if (atomic_load(&sign.rung) != (int)owner->rung || atomic_load(&sign.mends) != owner->mends)
        return PEER_LOST;
    const bool was_there = !c->word_at || (c->accepts(before, c->expected, has_canary) &&
                                           c->accepts(after, c->expected, has_canary));
    return was_there ? PEER_READ : PEER_LOST;
}

/* Once, because reading the environment while another thread changes it is unsafe. */
__attribute__((constructor)) static void look_whether_turned_off(void) {
    const char *given = secure_getenv("VRANGE_PEERS");
    self.is_off = given && strcmp(given, "0") == 0;
}

/* Whether the call would end this process, by its sandbox or because the user has said so. A filter can't be
 * read, so a child tries the call where there is one. A filter that comes after that is not noticed. */
static bool must_not_call(void) {
    const int known = atomic_load_explicit(&self.sandbox, memory_order_relaxed);
    if (known != SANDBOX_UNKNOWN) return known == SANDBOX_KILLS;
    if (self.is_off) return true;
    if (!os_has_filter()) return false;
    const int result = os_try_whether_child_reads();
    if (result == -EAGAIN || result == -ENOMEM) return true; /* no child could be made: not now */
    const bool kills = result == -ENOSYS;
    atomic_store(&self.sandbox, kills ? SANDBOX_KILLS : SANDBOX_SPARES);
    return kills;
}

int peer_read(const peer *owner, peer_content *c) {
    if (must_not_call()) {
        c->error = -EPERM;
        return PEER_REFUSED;
    }
    const size_t all = c->head_bytes + c->bytes;
    size_t done = 0;
    int result;
    do {
        const size_t some = all - done < OS_READ_PARTS_MOST ? all - done : OS_READ_PARTS_MOST;
        result = read_some(owner, c, done, done ? 0 : c->head_bytes, some);
        done += some;
    } while (result == PEER_READ && done < all);
    return result;
}
