/* The processes that this one was forked from; see owners.h. */
#include "ranges/owners.h"

#include "base/rung.h"
#include "os/os.h"
#include "ranges/range_marks.h"
#include "vrange.h"

_Atomic uint32_t range_forks, owners_over;

static struct {
    owner all[OWNERS_MOST]; /* the first is the eldest */
    uint32_t count;
} owners;

/* This process, as its children will know it. */
static struct {
    owner as_owner;
    _Atomic uint32_t *mark; /* in memory that the children share, from the first fork on */
} self;

bool owners_before_fork(void) {
    self.as_owner = (owner){.born = atomic_fetch_add(&range_forks, 1) + 1};
    if (!self.mark) self.mark = os_map_for_children(os_page_bytes());
    self.as_owner.all = self.mark;
    if (!self.mark || peer_self(&self.as_owner.process) < 0) return false;
    peer_let_read(PEER_CHILDREN);
    return true;
}

uint32_t owners_after_fork(bool leaves_ranges) {
    const bool is_added = leaves_ranges && owners.count < OWNERS_MOST;
    const uint32_t level = is_added ? owners.count++ : NO_OWNER;
    if (is_added) owners.all[level] = self.as_owner;
    self.mark = NULL; /* it is the parent's; others may still refer to it */
    atomic_store(&range_forks, 0);
    peer_after_fork();
    return level;
}

owner *owner_at(uint32_t level) { return level < owners.count ? &owners.all[level] : NULL; }

void owner_ends(owner *which) {
    if (!atomic_exchange(&which->is_over, true)) atomic_fetch_add(&owners_over, 1);
}

bool owners_have_lost(uint64_t word) {
    const owner *of = word_is_away(word) ? owner_at(word_level(word)) : NULL;
    return !of || atomic_load(&of->is_over);
}

bool owner_still_has(const owner *of, const range_mark *mark) {
    atomic_thread_fence(memory_order_seq_cst); /* what was read so far was read before */
    return !atomic_load(&of->is_over) && atomic_load(&mark->changed) < of->born &&
           atomic_load(of->all) < of->born;
}

void owners_all_change(void) {
    if (!self.mark) return;
    atomic_store(self.mark, atomic_load(&range_forks));
    atomic_thread_fence(memory_order_seq_cst);
}
