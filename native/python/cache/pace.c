/* The pace of aging; see pace.h.
 *
 * All caches without a bound of their own compete for the memory of the process, so they share a miniature.
 * What it has learned is forgotten once the last of them is closed. A cache with a bound has its own. If bytes
 * compete, only values with ranges of their own are simulated: a slab is lost as a whole, with the values of
 * many keys. In a cache with max_entries entries compete, whatever their size.
 *
 * As long as nothing competes, no request is simulated. So a miniature begins with what the caches hold and how
 * often it was used: values that were popular once are what a program that moves on has to get rid of. */
#include "python/cache/pace.h"

#include "os/os.h"
#include "ranges/worth.h"

#define BEGIN_RANGES 1024u /* with more, so few of the requests are simulated that they cost nothing */
#define SEEDED_MOST 65536u /* records that are looked at: some hundred microseconds */

/* Of all caches that do not age alone. */
static miniature *together;
static mini_aging shared_aging = {.pace = VRANGE_PACE_USUAL};

const mini_aging *pace_aging(const cache_core *self) {
    return self->ages_alone ? &self->aging : &shared_aging;
}

/* The cost that install.c noted: four steps an octave. */
static float cost_of(const entry *e) {
    return (float)(1ull << e->cost / 4) * (1 + (float)(e->cost % 4) / 4);
}

static bool entries_compete(const cache_core *self) {
    return self->max_entries < PY_SSIZE_T_MAX && self->max_bytes == PY_SSIZE_T_MAX;
}

/* False: the value does not compete. */
static bool measure(const cache_core *self, const entry *e, uint32_t *pages, mini_volume *of) {
    if (e->place == PLACE_NOWHERE || e->place == PLACE_FLIGHT) return false;
    if (entries_compete(self)) {
        *pages = 1;
        of->ranges = self->index.entries - self->flight_count;
        of->pages = of->ranges;
        return true;
    }
    if (e->place & PLACE_SLOT) return false;
    *pages = (uint32_t)(vrange_bytes(e->place) / os_page_bytes());
    vrange_arena_competing(self->arena, &of->ranges, &of->pages);
    return *pages > 0; /* else the range is gone */
}

/* ---- beginning ------------------------------------------------------------------------------- */

static mini_request request_for(const cache_core *self, const entry *e, uint32_t pages, uint32_t times) {
    return (mini_request){.tag = e->hash ^ self->salt, .pages = pages, .cost = cost_of(e), .times = times};
}

static uint32_t uses_of(const entry *e) {
    const bool is_known = e->place && !(e->place & (PLACE_SLOT | PLACE_FLIGHT));
    return is_known ? vrange_uses(e->place) / USE : e->credit + 1u;
}

static void seed(const cache_core *self, miniature *m, uint32_t *left) {
    for (entry_no number = 1; number < self->index.records && *left > 0; number++, --*left) {
        const entry *e = entry_at(&self->index, number);
        uint32_t pages;
        mini_volume of;
        if (e->state != RECORD_LISTED || !measure(self, e, &pages, &of)) continue;
        miniature_fit(m, of);
        const mini_request request = request_for(self, e, pages, uses_of(e));
        if (miniature_samples(m, request.tag)) miniature_seed(m, &request);
    }
}

static void begin(cache_core *self) {
    if (self->miniature || !self->arena) return;
    miniature *m = self->ages_alone || !together ? miniature_make() : together;
    if (!m) return;
    uint32_t left = SEEDED_MOST;
    if (self->ages_alone) {
        self->miniature = m;
        seed(self, m, &left);
        return;
    }
    together = m;
    for (cache_core *core = cores_first(); core; core = core->following) {
        if (core->ages_alone || !core->arena) continue;
        core->miniature = m;
        seed(core, m, &left);
    }
}

static bool competes_with_others(const cache_core *self) {
    for (const cache_core *core = cores_first(); core; core = core->following) {
        if (core != self && core->arena && !core->ages_alone) return true;
    }
    return false;
}

/* The caches whose requests chose the pace are closed: another load begins. */
static void begin_anew(cache_core *self) {
    miniature_free(together);
    together = NULL;
    shared_aging = (mini_aging){.pace = VRANGE_PACE_USUAL};
    vrange_arena_set_aging(self->arena, shared_aging.pace, shared_aging.keeps);
}

void pace_open(cache_core *self, bool ages_alone) {
    self->ages_alone = ages_alone;
    if (ages_alone) {
        self->aging = (mini_aging){.pace = VRANGE_PACE_USUAL};
        vrange_arena_age_alone(self->arena);
    } else {
        self->salt = (uint32_t)((uintptr_t)self >> 4) * 0x9e3779b1u;
        if (!competes_with_others(self)) begin_anew(self);
        self->miniature = together;
    }
}

void pace_grow(cache_core *self) {
    uint32_t ranges;
    uint64_t pages;
    if (self->miniature || !self->arena) return;
    vrange_arena_competing(self->arena, &ranges, &pages);
    if (ranges >= BEGIN_RANGES || (entries_compete(self) && self->index.entries >= BEGIN_RANGES)) begin(self);
}

/* ---- what was lost --------------------------------------------------------------------------- */

void pace_remember(cache_core *self, key_hash hash, uint32_t uses, bool purged) {
    const uint32_t epoch = self->arena ? vrange_arena_epoch(self->arena) : 0;
    ghosts_remember(&self->ghosts, hash, uses, purged, epoch, self->index.entries);
    begin(self);
}

uint32_t pace_remembered_uses(const cache_core *self, key_hash hash) {
    return self->arena ? ghosts_uses(&self->ghosts, hash, vrange_arena_epoch(self->arena)) : 0;
}

void pace_end(cache_core *self) {
    if (self->ages_alone) miniature_free(self->miniature);
    self->miniature = NULL;
}

/* ---- requests -------------------------------------------------------------------------------- */

void pace_simulate(cache_core *self, const entry *e, uint32_t times) {
    uint32_t pages;
    mini_volume of;
    if (!self->arena || !measure(self, e, &pages, &of)) return;
    const mini_request request = request_for(self, e, pages, times);
    const mini_aging wanted = miniature_note(self->miniature, &request, of);
    mini_aging *now = self->ages_alone ? &self->aging : &shared_aging;
    if (wanted.pace == now->pace && wanted.keeps == now->keeps) return;
    *now = wanted;
    vrange_arena_set_aging(self->arena, wanted.pace, wanted.keeps);
}
