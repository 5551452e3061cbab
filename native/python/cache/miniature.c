/* Miniatures; see miniature.h.
 *
 * Which values to keep depends on the program. If popularity lasts, uses should age slowly. If requests move
 * on, uses should age within fewer requests than there are values, as in an LRU. If requests go round in a
 * loop that is longer than the cache, what is there should stay, and what comes should go. A hit ratio that
 * is only watched can't tell which: it changes for many reasons. So a few caches in miniature, one for each
 * way of aging, are simulated on the requests for a sample of the keys, and the one that would have saved the
 * most computing decides (Waldspurger, Saemundsson, Ahmad and Park, "Cache modeling and optimization using
 * miniature simulations", 2017). Keys are sampled by their hash, so that all requests for a key are seen or
 * none. A miniature holds no values: a key's cost, its pages, and its aged uses in each of the simulations.
 *
 * Uses are kept by forward decay (Cormode, Shkapenyuk, Srivastava and Xu, 2009): instead of making all counts
 * smaller with time, a later use counts more than an earlier one. So counts stay comparable, and only the key
 * that is requested changes. Nothing here runs Python. */
#include "python/cache/miniature.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "vrange.h"

#define MINIATURES_MOST 64 /* 2 MiB: beyond them, caches age at the usual pace */
#define KEYS 512u          /* held by a simulation, or remembered as its ghosts */
#define HELD_MOST 128u     /* so a quarter of the keys is held, and the rest are ghosts */
#define BUCKETS 1024u
#define NO_KEY UINT16_MAX
#define GHOSTS_COMPARED 8
#define LARGEST_USE 0x1p60f /* beyond it, all counts are scaled down */
#define NOT_HELD FLT_MAX
#define HIGHEST_VALUE 0x1p126f
#define LN_2 0.693f

/* The first is the usual one, of TinyLFU's kind. Each of the next is four times as fast as the one before; the
 * fastest is close to an LRU. The last keeps what is there. */
#define AGINGS 5
static const mini_aging agings[AGINGS] = {
    {VRANGE_PACE_USUAL, false}, {80, false}, {20, false}, {5, false}, {VRANGE_PACE_USUAL, true}};

#define NOTES_A_LOOK 16
#define DECAY_A_LOOK 0.985f /* half after some 700 notes */
#define CLEARLY 1.02f       /* better: agings that serve about as well are not exchanged for ever */
#define CHANCE 4.0f         /* values that one simulation may have saved by chance */

typedef struct {
    uint32_t tag, pages, noted;
    float cost, worth; /* cost for each page */
    uint16_t next;  /* in its bucket */
    uint8_t holders; /* a bit for each simulation that holds it */
} mini_key;

typedef struct {
    float uses[KEYS];
    float values[KEYS]; /* of keys that are held: uses times worth; NOT_HELD of others */
    float use;    /* what a use counts now */
    float growth; /* of that, with each request */
    float saved;
    uint32_t held;
    uint64_t pages;
} simulation;

struct miniature {
    struct miniature_sample sample; /* first: miniature_samples */
    uint32_t noted, count;
    uint32_t hand; /* least_needed */
    unsigned best;
    float usual_cost; /* of a request, lately */
    uint16_t buckets[BUCKETS];
    mini_key keys[KEYS];
    simulation simulations[AGINGS];
};

static uint32_t miniatures;

/* So that uses are halved once an epoch. */
static void set_growth(miniature *m, unsigned number) {
    simulation *s = &m->simulations[number];
    const uint32_t least = VRANGE_EPOCH_RANGES_LEAST >> m->sample.shift;
    const float epoch = (float)(agings[number].pace * (s->held > least ? s->held : least)) / 16;
    s->growth = LN_2 / (epoch > 1 ? epoch : 1);
}

miniature *miniature_make(void) {
    miniature *m = miniatures < MINIATURES_MOST ? calloc(1, sizeof *m) : NULL;
    if (!m) return NULL;
    miniatures++;
    memset(m->buckets, 0xff, sizeof m->buckets);
    for (unsigned i = 0; i < AGINGS; i++) {
        m->simulations[i].use = 1;
        set_growth(m, i);
        for (uint32_t key = 0; key < KEYS; key++) m->simulations[i].values[key] = NOT_HELD;
    }
    return m;
}

void miniature_free(miniature *gone) {
    if (gone) miniatures--;
    free(gone);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static uint16_t *link_to(miniature *m, uint32_t tag) {
    uint16_t *link = &m->buckets[tag % BUCKETS];
    while (*link != NO_KEY && m->keys[*link].tag != tag) link = &m->keys[*link].next;
    return link;
}

static void let_go(miniature *m, unsigned number, uint32_t key) {
    simulation *s = &m->simulations[number];
    m->keys[key].holders &= (uint8_t)~(1u << number);
    s->values[key] = NOT_HELD;
    s->held--;
    s->pages -= m->keys[key].pages;
}

/* Below NOT_HELD, whatever a caller says that a value costs. */
static float value_of_uses(float uses, float worth) {
    const float value = uses * worth;
    return value < HIGHEST_VALUE ? value : HIGHEST_VALUE;
}

static void hold(miniature *m, unsigned number, uint32_t key) {
    simulation *s = &m->simulations[number];
    m->keys[key].holders |= (uint8_t)(1u << number);
    s->values[key] = value_of_uses(s->uses[key], m->keys[key].worth);
    s->held++;
    s->pages += m->keys[key].pages;
}

/* The last key moves to the place of the one that goes. */
static void forget(miniature *m, uint32_t key) {
    for (unsigned i = 0; i < AGINGS; i++) {
        if (m->keys[key].holders >> i & 1) let_go(m, i, key);
    }
    *link_to(m, m->keys[key].tag) = m->keys[key].next;
    const uint32_t last = --m->count;
    if (key == last) return;
    *link_to(m, m->keys[last].tag) = (uint16_t)key;
    m->keys[key] = m->keys[last];
    for (unsigned i = 0; i < AGINGS; i++) {
        simulation *s = &m->simulations[i];
        s->uses[key] = s->uses[last];
        s->values[key] = s->values[last];
        s->values[last] = NOT_HELD;
    }
}

static bool is_older(const miniature *m, uint32_t one, uint32_t other) {
    return m->noted - m->keys[one].noted > m->noted - m->keys[other].noted;
}

/* Of a few keys that no simulation holds, the one that was requested longest ago. */
static uint32_t least_needed(miniature *m) {
    uint32_t least = NO_KEY;
    int compared = 0;
    for (uint32_t tries = 0; tries < m->count && compared < GHOSTS_COMPARED; tries++) {
        if (++m->hand >= m->count) m->hand = 0;
        if (m->keys[m->hand].holders) continue;
        compared++;
        if (least == NO_KEY || is_older(m, m->hand, least)) least = m->hand;
    }
    return least == NO_KEY ? m->hand : least;
}

static uint32_t key_of(miniature *m, uint32_t tag) {
    const uint16_t found = *link_to(m, tag);
    if (found != NO_KEY) return found;
    if (m->count == KEYS) forget(m, least_needed(m));
    const uint32_t key = m->count++;
    uint16_t *bucket = &m->buckets[tag % BUCKETS];
    m->keys[key] = (mini_key){.tag = tag, .next = *bucket};
    *bucket = (uint16_t)key;
    for (unsigned i = 0; i < AGINGS; i++) {
        m->simulations[i].uses[key] = 0;
        m->simulations[i].values[key] = NOT_HELD;
    }
    return key;
}

/* ---- the sample ------------------------------------------------------------------------------ */

void miniature_fit(miniature *m, mini_volume of) {
    const uint32_t ranges = of.ranges;
    while (ranges >> m->sample.shift > HELD_MOST) {
        m->sample.shift++;
        for (uint32_t i = m->count; i-- > 0;) {
            if (!miniature_samples(m, m->keys[i].tag)) forget(m, i);
        }
    }
    while (m->sample.shift && ranges >> m->sample.shift < HELD_MOST / 4) m->sample.shift--;
}

/* ---- a simulation ---------------------------------------------------------------------------- */

/* Whether the first goes before the second if they are worth the same. */
static bool goes_first(const miniature *m, unsigned number, uint32_t one, uint32_t other) {
    return agings[number].keeps ? is_older(m, other, one) : is_older(m, one, other);
}

/* Four at a time, so that the processor need not wait for each comparison. */
static float least_of(const float values[KEYS]) {
    float least[4] = {NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD};
    for (uint32_t i = 0; i < KEYS; i += 4) {
        for (uint32_t j = 0; j < 4; j++) least[j] = values[i + j] < least[j] ? values[i + j] : least[j];
    }
    for (uint32_t j = 1; j < 4; j++) least[0] = least[j] < least[0] ? least[j] : least[0];
    return least[0];
}

static void evict_least(miniature *m, unsigned number, uint32_t kept) {
    simulation *s = &m->simulations[number];
    const float its_value = s->values[kept];
    s->values[kept] = NOT_HELD; /* it is not the victim */
    const float least = least_of(s->values);
    uint32_t victim = NO_KEY;
    for (uint32_t i = 0; i < m->count; i++) {
        if (s->values[i] == least && (victim == NO_KEY || goes_first(m, number, i, victim))) victim = i;
    }
    s->values[kept] = its_value;
    let_go(m, number, victim);
}

static void scale_down(simulation *s, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        s->uses[i] /= LARGEST_USE;
        if (s->values[i] < NOT_HELD) s->values[i] /= LARGEST_USE;
    }
    s->use /= LARGEST_USE;
}

static void simulate(miniature *m, unsigned number, uint32_t key, uint32_t times, mini_volume of) {
    simulation *s = &m->simulations[number];
    const mini_key *k = &m->keys[key];
    const bool is_held = k->holders >> number & 1;
    if (agings[number].keeps && !is_held) s->uses[key] = 0; /* only what is hit while it is there counts */
    else s->uses[key] += s->use * (float)times;
    if (is_held) {
        s->saved += k->cost * (float)times;
        s->values[key] = value_of_uses(s->uses[key], k->worth);
    } else {
        s->saved += k->cost * (float)(times - 1);
        hold(m, number, key);
        set_growth(m, number);
        while (s->pages > of.pages >> m->sample.shift && s->held > 1) evict_least(m, number, key);
    }
    s->use *= 1 + s->growth * (float)times;
    if (s->use > LARGEST_USE) scale_down(s, m->count);
}

static void decide(miniature *m) {
    unsigned best = 0;
    for (unsigned i = 0; i < AGINGS; i++) {
        m->simulations[i].saved *= DECAY_A_LOOK;
        if (m->simulations[i].saved > m->simulations[best].saved) best = i;
    }
    const float now = m->simulations[m->best].saved, then = m->simulations[best].saved;
    if (then > now * CLEARLY + CHANCE * m->usual_cost) m->best = best;
}

static void describe(mini_key *k, const mini_request *request) {
    k->pages = request->pages;
    k->cost = request->cost;
    k->worth = request->cost / (float)request->pages;
}

void miniature_seed(miniature *m, const mini_request *request) {
    const uint32_t key = key_of(m, request->tag);
    if (m->keys[key].holders) return;
    describe(&m->keys[key], request);
    for (unsigned i = 0; i < AGINGS; i++) {
        m->simulations[i].uses[key] = m->simulations[i].use * (float)request->times;
        hold(m, i, key);
    }
}

mini_aging miniature_note(miniature *m, const mini_request *request, mini_volume of) {
    miniature_fit(m, of);
    m->noted++;
    const uint32_t key = key_of(m, request->tag);
    mini_key *k = &m->keys[key];
    for (unsigned i = 0; i < AGINGS && k->pages != request->pages; i++) {
        if (k->holders >> i & 1) let_go(m, i, key);
    }
    describe(k, request);
    k->noted = m->noted;
    m->usual_cost += (request->cost - m->usual_cost) / 64;
    for (unsigned i = 0; i < AGINGS; i++) simulate(m, i, key, request->times, of);
    if (m->noted % NOTES_A_LOOK == 0) decide(m);
    return agings[m->best];
}
