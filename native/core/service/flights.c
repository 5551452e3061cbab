/* Computations under way in the processes of a service: one for each key at a time.
 *
 * The word of a flight names the process that leads it, and a part of the key. Another key may need the same
 * flight: its caller then computes without one. The worst that can happen is that a key is computed twice.
 *
 * A leader may die or be stopped. So waiters sleep for short times, and look at the leader after each. A leader
 * may also wait for another flight. Before a leader waits, it follows the flights that others wait for. If they
 * lead back to its own, it computes the value itself, because waiting would never end. */
#include <errno.h>
#include <string.h>

#include "os/os.h"
#include "service/members.h"
#include "vrange.h"

#define FOLLOWED_MOST 256

static uint64_t key_bits(const unsigned char *digest) {
    uint64_t bits;
    memcpy(&bits, digest + VRANGE_DIGEST_BYTES - sizeof bits, sizeof bits);
    return bits << FLIGHT_KEY_SHIFT;
}

static uint32_t flight_number(const unsigned char *digest) {
    uint32_t bits;
    memcpy(&bits, digest + 4, sizeof bits);
    return bits % FLIGHTS;
}

static uint64_t leader_of(const vrange_shared *s, uint64_t word) {
    return member_at(s, FLIGHT_PLACE_OF(word), FLIGHT_SERIAL_OF(word), FLIGHT_SERIAL_MASK);
}

static member_state look_at_leader(const vrange_shared *s, uint64_t word) {
    const uint64_t leader = leader_of(s, word);
    return leader ? member_look(s, leader) : MEMBER_GONE;
}

int vrange_shared_lead(vrange_shared *s, const unsigned char *digest, vrange_shared_flight *out) {
    const uint64_t identity = own_identity(s);
    const uint32_t place = atomic_load(&s->own->place);
    const uint64_t serial = identity >> 32 & FLIGHT_SERIAL_MASK;
    const uint64_t mine = key_bits(digest) | serial << FLIGHT_PLACE_BITS | place;
    out->number = flight_number(digest);
    out->leads = 0;
    index_flight *flight = &s->flights[out->number];
    if (!identity) return -ESRCH;
    uint64_t word = atomic_load(&flight->word);
    for (;;) {
        out->landings = atomic_load(&flight->landings);
        if (word && look_at_leader(s, word) != MEMBER_GONE) {
            if (word >> FLIGHT_KEY_SHIFT != mine >> FLIGHT_KEY_SHIFT) return -EBUSY;
            out->word = word;
            return VRANGE_HELD;
        }
        if (!atomic_compare_exchange_strong(&flight->word, &word, mine)) continue;
        atomic_store(&flight->waits_for, 0);
        out->word = mine;
        out->leads = 1;
        return VRANGE_OK;
    }
}

void vrange_shared_land(vrange_shared *s, const vrange_shared_flight *led) {
    if (led->number >= FLIGHTS) return;
    index_flight *flight = &s->flights[led->number];
    uint64_t word = led->word;
    if (!atomic_compare_exchange_strong(&flight->word, &word, 0)) return; /* a waiter took it over */
    atomic_fetch_add(&flight->landings, 1);
    os_wake_shared(&flight->landings);
}

int vrange_shared_wait(vrange_shared *s, const vrange_shared_flight *awaited, uint64_t nanoseconds) {
    if (awaited->number >= FLIGHTS) return VRANGE_OK;
    index_flight *flight = &s->flights[awaited->number];
    if (atomic_load(&flight->word) != awaited->word) return VRANGE_OK;
    if (nanoseconds) os_wait_shared(&flight->landings, awaited->landings, nanoseconds);
    uint64_t word = atomic_load(&flight->word);
    if (word != awaited->word || atomic_load(&flight->landings) != awaited->landings) return VRANGE_OK;
    switch (look_at_leader(s, word)) {
    case MEMBER_RUNS: return VRANGE_HELD;
    case MEMBER_STOPPED:
    case MEMBER_GONE: break;
    }
    /* The leader stores nothing that is wrong if it goes on: what was invalidated since, it finds changed. */
    if (atomic_compare_exchange_strong(&flight->word, &word, 0)) {
        atomic_fetch_add(&flight->landings, 1);
        os_wake_shared(&flight->landings);
    }
    return VRANGE_OK;
}

void vrange_shared_waits_for(vrange_shared *s, const vrange_shared_flight *led, int64_t awaited) {
    if (led->number >= FLIGHTS || atomic_load(&s->flights[led->number].word) != led->word) return;
    atomic_store(&s->flights[led->number].waits_for, (uint32_t)(awaited + 1));
}

int vrange_shared_leads_to(const vrange_shared *s, uint32_t from, const vrange_shared_flight *led,
                           size_t count) {
    for (int followed = 0; followed < FOLLOWED_MOST; followed++) {
        if (from >= FLIGHTS) return 0;
        const index_flight *flight = &s->flights[from];
        const uint64_t word = atomic_load(&flight->word);
        for (size_t i = 0; i < count; i++) {
            if (led[i].number == from && led[i].word == word) return 1;
        }
        const uint32_t next = atomic_load(&flight->waits_for);
        if (!word || !next) return 0;
        from = next - 1;
    }
    return 1; /* longer than a chain of threads can be: a circle that the caller is not in */
}
