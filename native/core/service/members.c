/* Members; see members.h.
 *
 * A process id may be another process's by now, so a member is known by the time at which it began, too. A
 * member whose state can't be read counts as alive: taking what it owns would let two processes write to it. */
#include "service/members.h"

#include <errno.h>
#include <string.h>

#include "base/gate.h"
#include "base/rung.h"
#include "os/os.h"
#include "peers/peer.h"
#include "service/index_cut.h"
#include "vrange.h"

static uint64_t identity_in(uint64_t word, uint32_t place) {
    return (word & ~0xffffffffull) | (place + 1);
}

bool member_read(const vrange_shared *s, uint64_t identity, index_member *out) {
    const uint32_t place = (uint32_t)identity - 1;
    if (place >= MEMBERS) return false;
    index_member *at = &s->members[place];
    const uint64_t word = atomic_load(&at->word);
    *out = *at;
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load(&at->word) != word) return false;
    out->process.pid = (uint32_t)word;
    out->process.mends = atomic_load(&out->mends);
    return identity_in(word, place) == identity && (uint32_t)word != 0 && !(word & MEMBER_JOINS);
}

static member_state look(const index_member *member) {
    const uint32_t pid = (uint32_t)atomic_load(&member->word);
    os_process found;
    /* When it began is not known yet. The place is lost while another process has this number. */
    if (pid & MEMBER_JOINS)
        return os_process_look(pid & ~MEMBER_JOINS, &found) == OS_PROCESS_GONE ? MEMBER_GONE : MEMBER_RUNS;
    switch (os_process_state(pid, member->process.started)) {
    case OS_PROCESS_GONE: return MEMBER_GONE;
    case OS_PROCESS_STOPPED: return MEMBER_STOPPED;
    default: return MEMBER_RUNS;
    }
}

member_state member_look(const vrange_shared *s, uint64_t identity) {
    index_member member;
    if (identity == own_identity(s)) return MEMBER_RUNS;
    return member_read(s, identity, &member) ? look(&member) : MEMBER_GONE;
}

uint64_t member_at(const vrange_shared *s, uint32_t place, uint32_t serial_bits, uint32_t mask) {
    if (place >= MEMBERS) return 0;
    const uint64_t word = atomic_load(&s->members[place].word);
    if ((uint32_t)word == 0 || ((uint32_t)(word >> 32) & mask) != serial_bits) return 0;
    return identity_in(word, place);
}

uint32_t vrange_shared_members(const vrange_shared *s) {
    uint32_t living = 0;
    for (uint32_t place = 0; place < MEMBERS; place++) {
        const uint64_t word = atomic_load(&s->members[place].word);
        const uint64_t identity = identity_in(word, place);
        if ((uint32_t)word == 0 || identity == own_identity(s)) continue;
        living += member_look(s, identity) != MEMBER_GONE;
    }
    return living;
}

/* Not while the userfaultfd is being replaced: the gate is closed then. */
static uint64_t settled_mends(void) {
    for (;;) {
        const uint64_t mends = rung_mends();
        gate_wait();
        if (mends == rung_mends() && !gate_is_closed()) return mends;
    }
}

void member_note_mends(vrange_shared *s) {
    index_member *member = &s->members[atomic_load(&s->own->place)];
    if (atomic_load(&member->mends) != rung_mends()) atomic_store(&member->mends, settled_mends());
}

/* A program that this process ran before it called exec has the same id and start, and none of its memory. Its
 * proof is another one: this program may have mapped the index twice, and be a member already. */
static void leave_for_the_program_before(vrange_shared *s, const peer *self) {
    for (uint32_t place = 0; place < MEMBERS; place++) {
        index_member *member = &s->members[place];
        uint64_t word = atomic_load(&member->word);
        if ((uint32_t)word != self->pid) continue;
        if (memcmp(member->process.proof, self->proof, sizeof self->proof) == 0) continue;
        atomic_compare_exchange_strong(&member->word, &word, word & ~0xffffffffull);
    }
}

static void end_flights_of(vrange_shared *s, uint32_t place) {
    for (uint32_t number = 0; number < FLIGHTS; number++) {
        index_flight *flight = &s->flights[number];
        uint64_t word = atomic_load_explicit(&flight->word, memory_order_relaxed);
        if (!word || FLIGHT_PLACE_OF(word) != place) continue;
        if (!atomic_compare_exchange_strong(&flight->word, &word, 0)) continue;
        atomic_fetch_add(&flight->landings, 1);
        os_wake_shared(&flight->landings);
    }
}

/* The caller holds own->lock: of two threads, the second would join again. */
static int join(vrange_shared *s) {
    peer self;
    if (own_identity(s)) return 0;
    index_cut_watch(s);
    if (atomic_load(&s->is_cut)) return -EBADMSG;
    const int result = peer_self(&self);
    if (result < 0) return result;
    leave_for_the_program_before(s, &self);
    peer_let_read(PEER_GROUP);
    for (uint32_t place = 0; place < MEMBERS; place++) {
        index_member *member = &s->members[place];
        uint64_t word = atomic_load(&member->word);
        if ((uint32_t)word != 0 && look(member) != MEMBER_GONE) continue;
        /* First the word, so that what follows is never taken for the member's before, and no other process
         * takes the place: of two members in one place, each would take the other for dead. */
        const uint64_t mine = ((word >> 32) + 1) << 32 | os_process_id();
        uint64_t joining = mine | MEMBER_JOINS;
        if (!atomic_compare_exchange_strong(&member->word, &word, joining)) continue;
        atomic_thread_fence(memory_order_release); /* a reader of what follows finds the word changed */
        member->process = self;
        atomic_store(&member->mends, settled_mends());
        end_flights_of(s, place);
        /* This can only fail if other code has written to the index. */
        if (!atomic_compare_exchange_strong(&member->word, &joining, mine)) continue;
        atomic_store(&s->own->place, place);
        atomic_store(&s->own->identity, identity_in(mine, place));
        if (!atomic_load(&s->is_cut)) return 0;
        atomic_store(&s->own->identity, 0); /* it was cut between the touches above */
        return -EBADMSG;
    }
    return -EUSERS;
}

int vrange_shared_join(vrange_shared *s) {
    pthread_mutex_lock(&s->own->lock);
    const int result = join(s);
    pthread_mutex_unlock(&s->own->lock);
    return result;
}

uint64_t vrange_shared_identity(const vrange_shared *s) { return own_identity(s); }

void vrange_shared_leave(vrange_shared *s) {
    pthread_mutex_lock(&s->own->lock); /* no thread writes to a block of this process any more */
    const uint64_t identity = own_identity(s);
    atomic_store(&s->own->identity, 0);
    memset(s->own->owned, 0, sizeof s->own->owned);
    pthread_mutex_unlock(&s->own->lock);
    if (!identity) return;
    index_member *member = &s->members[atomic_load(&s->own->place)];
    uint64_t word = atomic_load(&member->word);
    if (identity_in(word, atomic_load(&s->own->place)) == identity)
        atomic_compare_exchange_strong(&member->word, &word, word & ~0xffffffffull);
}
