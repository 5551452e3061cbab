/* Install; see install.h.
 *
 * Once the entry is found, no Python code runs until it refers to the new place: no other caller sees a half
 * of both. So the references to the value before are handed to the caller, which drops them when the state is
 * whole. */
#include "python/cache/install.h"

#include "python/cache/hot_front.h"
#include "python/cache/limbo.h"
#include "python/cache/pace.h"
#include "ranges/worth.h"

static entry_no with_deadline(cache_core *self, const store_request *r, entry_no number) {
    const bool lacks = number && r->expires_ns && !index_takes_deadline(&self->index, number);
    return lacks ? 0 : number;
}

entry_no install_target(cache_core *self, store_request *r) {
    if (r->of) {
        r->called_off = r->of->number == 0;
        return with_deadline(self, r, r->of->number);
    }
    entry_no number = index_find(&self->index, r->key, r->hash);
    if (number == FIND_FAILED) return number;
    if (r->renews) {
        const entry *e = number ? entry_at(&self->index, number) : NULL;
        r->called_off = !e || e->stamp != r->renews || e->place == PLACE_FLIGHT;
        return r->called_off ? 0 : with_deadline(self, r, number);
    }
    if (!number && !self->closed) number = index_add(&self->index, r->key, r->hash);
    return with_deadline(self, r, number);
}

void install_forget(cache_core *self, const store_request *r, entry_no number) {
    const entry *e = entry_at(&self->index, number);
    if (!r->of && !e->place && !e->value) index_bury(&self->index, number);
}

static uint8_t first_credit(const cache_core *self, const store_request *r) {
    if (pace_aging(self)->keeps || pace_is_fast(self)) return 0;
    const uint32_t uses = pace_remembered_uses(self, r->hash) / 16;
    return (uint8_t)(uses < CREDIT_MOST ? uses : CREDIT_MOST);
}

static uint8_t cost_step(uint64_t cost_ns) {
    const uint64_t ns = cost_ns ? cost_ns : UNKNOWN_COST_NS;
    const int octave = 63 - __builtin_clzll(ns);
    return (uint8_t)(octave < 2 ? octave : octave * 4 + (int)(ns >> (octave - 2) & 3));
}

void install(cache_core *self, store_request *r, entry_no number, uint64_t place, const coded *c,
             PyObject *before[2]) {
    entry *e = entry_at(&self->index, number);
    const uint64_t place_before = e->place;
    if (place_before == PLACE_FLIGHT) flight_detach((flight *)e->form);
    before[0] = hot_release(self, number);
    before[1] = e->form;
    e->credit = first_credit(self, r);
    e->cost = cost_step(r->cost_ns);
    e->form = Py_XNewRef(c->form);
    entry_refers(&self->index, number, e->form);
    e->refers = c->refers;
    e->is_text = c->is_text;
    e->tail = c->is_small ? 0 : (uint16_t)(vrange_bytes(place) - c->bytes);
    e->place = place;
    e->weight = c->is_private ? NEVER_HOT : 0;
    e->stamp = ++self->index.stamps;
    e->expires = r->expires_ns != 0;
    if (e->expires) *deadline_at(&self->index, number) = r->expires_ns;
    expiry_note(&self->deadlines, &self->index, number);
    ghosts_forget(&self->ghosts, r->hash);
    pace_grow(self);
    pace_note(self, e, 1);
    limbo_free_place(self, place_before);
    r->is_private = c->is_private;
    r->stored_in = number;
    r->stamp = e->stamp;
}
