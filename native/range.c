/* Ranges: pinned, volatile, purged.
 *
 * Pinning and releasing content that the kernel was never told about is one compare-and-swap and no
 * system call; that is the path of nearly every cache hit. Everything else first takes the range BUSY,
 * talks to the kernel, and puts the new state in place. See range.h for the states. */
#include "range.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "array.h"
#include "fill.h"
#include "fork.h"
#include "os.h"
#include "reserve.h"
#include "rung.h"
#include "sentinel.h"
#include "stats.h"
#include "value.h"

#define UNKNOWN_COST_NS 1000000.0f /* where the user does not say: a millisecond, as good as any */
#define YIELDS_BEFORE_SLEEP 64

/* ---- the table -------------------------------------------------------------------------------- */

#define TABLE_CHUNKS 65536u

static struct {
    pthread_mutex_t lock;
    range *_Atomic chunks[TABLE_CHUNKS];
    _Atomic uint32_t count; /* index 0 is never a range */
    uint32_t free_first;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .count = 1};

range *table_at(uint32_t index) {
    return atomic_load_explicit(&table.chunks[index / TABLE_CHUNK], memory_order_acquire) +
           index % TABLE_CHUNK;
}

uint32_t table_count(void) { return atomic_load(&table.count); }

range *table_take(void) {
    range *r = NULL;
    pthread_mutex_lock(&table.lock);
    if (table.free_first) {
        r = table_at(table.free_first);
        table.free_first = r->list_next;
    } else if (table.count < TABLE_CHUNK * TABLE_CHUNKS - 1) {
        uint32_t index = table.count, chunk = index / TABLE_CHUNK;
        if (!table.chunks[chunk])
            atomic_store(&table.chunks[chunk], os_map(TABLE_CHUNK * sizeof(range)));
        if (table.chunks[chunk]) {
            r = table_at(index);
            r->index = index;
            atomic_store(&table.count, index + 1);
        }
    }
    pthread_mutex_unlock(&table.lock);
    return r;
}

void table_give(range *r) {
    pthread_mutex_lock(&table.lock);
    atomic_store(&r->arena, NULL);
    r->list_next = table.free_first;
    table.free_first = r->index;
    pthread_mutex_unlock(&table.lock);
}

static range *range_of(uint64_t handle) {
    uint32_t index = (uint32_t)handle;
    return index && index < table_count() ? table_at(index) : NULL;
}

static bool is_current(uint64_t word, uint64_t generation) {
    return (word & WORD_GENERATION) == generation && word_state(word) != FREE &&
           !(word & WORD_DOOMED);
}

char *range_address(const range *r) {
    return r->arena->base + (size_t)r->first_page * os_page_bytes();
}

size_t range_bytes(const range *r) { return (size_t)r->pages * os_page_bytes(); }

/* ---- taking a range BUSY ---------------------------------------------------------------------- */

static void wait_a_little(unsigned *waited) {
    if (++*waited < YIELDS_BEFORE_SLEEP) os_yield();
    else os_sleep_ns(50000); /* the holder may have lost its processor to somebody busy */
}

/* VRANGE_OK: the range is BUSY and ours, *word what it was. VRANGE_HELD: it has pins. */
static int take_busy(range *r, uint64_t generation, uint64_t *word) {
    unsigned waited = 0;
    for (;;) {
        *word = atomic_load(&r->word);
        if (!is_current(*word, generation)) return VRANGE_GONE;
        if (word_state(*word) == BUSY) {
            wait_a_little(&waited);
            continue;
        }
        if (word_pins(*word)) return VRANGE_HELD;
        if (atomic_compare_exchange_weak(&r->word, word, (*word & ~WORD_STATE) | BUSY))
            return VRANGE_OK;
    }
}

static void put_state(range *r, uint64_t word, uint64_t state) {
    atomic_store(&r->word, (word & ~WORD_STATE) | state);
}

/* ---- loss ------------------------------------------------------------------------------------- */

static void forget_lost_pages(range *r) {
    free(r->lost_pages);
    r->lost_pages = NULL;
}

/* The page may be accessed again, as zeros, and is remembered as lost. False without memory. */
static bool mark_lost_page(range *r, uint64_t word, uint32_t page) {
    if (word & WORD_LOST && !r->lost_pages) return true; /* all of it is lost already */
    if (!r->lost_pages) r->lost_pages = calloc((r->pages + 63) / 64, sizeof *r->lost_pages);
    if (!r->lost_pages) return false;
    r->lost_pages[page / 64] |= 1ull << page % 64;
    return true;
}

/* Of a range with a lost page: secures page by page what is there, and tells how much was not.
 * False: without memory for that, all of it is lost. */
static bool secure_page_by_page(range *r, uint64_t word, uint64_t *lost_bytes) {
    const size_t page_bytes = os_page_bytes();
    bool kept = true;
    *lost_bytes = 0;
    for (uint32_t page = 0; page < r->pages && kept; page++) {
        char *address = range_address(r) + (size_t)page * page_bytes;
        bool is_there = r->sentinel_words ? sentinel_secures(r, page)
                                          : os_populate(address, page_bytes) == 0;
        if (is_there) continue;
        *lost_bytes += page_bytes;
        kept = mark_lost_page(r, word, page) &&
               (r->sentinel_words || fill_zero(address, page_bytes) == 0);
    }
    if (!kept) *lost_bytes = range_bytes(r);
    if (r->sentinel_words) sentinel_remove(r);
    return kept;
}

/* Makes an offered range's pages safe from the kernel. VRANGE_PURGED: at least one was lost. */
static int secure(range *r) {
    if (!r->sentinel_words) {
        int result = os_populate(range_address(r), range_bytes(r));
        if (result == -EFAULT || result == -EHWPOISON) return VRANGE_PURGED;
        /* Asked afterwards: that all is there only counts if a lost page would have been told. */
        return result == 0 && !rung_holds() ? VRANGE_PURGED : result;
    }
    for (uint32_t page = 0; page < r->pages; page++) {
        if (!sentinel_secures(r, page)) return VRANGE_PURGED;
    }
    sentinel_remove(r);
    return VRANGE_OK;
}

/* Whoever looks next must find zeros, or nothing. */
static void empty(range *r) {
    char *address = range_address(r);
    const size_t bytes = range_bytes(r);
    if (os_discard(address, bytes) == 0) return;
    /* Locked memory (mlockall) can't be discarded. What is missing of it may not be touched yet. */
    fill_zero(address, bytes);
    memset(address, 0, bytes);
}

/* BUSY to PURGED: what is left of the content is dead weight. */
static void discard_rest(range *r, uint64_t word) {
    tally(&r->arena->account->purged_bytes, range_bytes(r)); /* first: it must not look pinned */
    empty(r);
    free(r->sentinel_words);
    r->sentinel_words = NULL;
    forget_lost_pages(r);
    put_state(r, word | WORD_LOST, PURGED);
}

/* ---- pins ------------------------------------------------------------------------------------- */

static void count_use(range *r) {
    vrange_arena *arena = r->arena;
    uint32_t epoch = atomic_load_explicit(&arena->epoch, memory_order_relaxed);
    uint32_t uses = uses_aged(r, epoch) + USE;
    /* Two threads may count one use between them: it is a popularity, not a bill. */
    atomic_store_explicit(&r->uses, uses < USES_MOST ? uses : USES_MOST, memory_order_relaxed);
    atomic_store_explicit(&r->epoch, epoch, memory_order_relaxed);
    arena_count_request(arena);
}

/* An offered range, BUSY now, is about to be something else. */
static void count_offer_over(range *r) {
    const uint64_t missing = (uint64_t)r->missing_pages * os_page_bytes();
    stats_offered(r->arena->account, -(int64_t)(range_bytes(r) - missing));
    if (missing) untally(&r->arena->account->purged_bytes, missing);
    r->missing_pages = 0;
}

/* Pins an offered or purged range. 0x100 is none of the interface's values: look again. */
#define LOOK_AGAIN 0x100

static int pin_slowly(range *r, uint64_t generation, bool only_whole) {
    uint64_t word;
    int result = take_busy(r, generation, &word);
    if (result == VRANGE_HELD) return LOOK_AGAIN;
    if (result != VRANGE_OK) return result;
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    uint64_t state = word_state(word);

    if (state == RESIDENT) {
        put_state(r, word, RESIDENT);
        return LOOK_AGAIN;
    }
    if (state == OFFERED) {
        result = secure(r);
        if (result == VRANGE_OK) {
            count_offer_over(r);
            put_state(r, word + WORD_PIN, RESIDENT);
            return word & WORD_LOST ? VRANGE_PURGED : VRANGE_OK;
        }
        if (result < 0) {
            put_state(r, word, OFFERED);
            return result;
        }
        count_offer_over(r);
        uint64_t lost_bytes = (uint64_t)bytes;
        bool some_is_kept =
            word & WORD_PARTIAL && rung_holds() && secure_page_by_page(r, word, &lost_bytes);
        tally(&account->purged_total, lost_bytes);
        if (some_is_kept) {
            word |= WORD_LOST;
            if (only_whole) stats_idle(account, bytes);
            put_state(r, only_whole ? word : word + WORD_PIN, RESIDENT);
            return VRANGE_PURGED;
        }
        discard_rest(r, word);
        if (only_whole) return VRANGE_PURGED;
        return LOOK_AGAIN;
    }
    /* PURGED: accessible again, as zeros, and told so until refilled. */
    if (only_whole) result = VRANGE_PURGED;
    else result = fill_zero(range_address(r), (size_t)bytes);
    if (result != VRANGE_OK) {
        put_state(r, word, PURGED);
        return result;
    }
    untally(&account->purged_bytes, (uint64_t)bytes);
    put_state(r, word + WORD_PIN, RESIDENT);
    return VRANGE_PURGED;
}

static int pin(uint64_t handle, bool only_whole) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    const bool timed = stats_times_fast(STATS_FAST_PIN);
    uint64_t start = timed ? os_now_ns() : 0;
    bool fast = true;
    const uint64_t generation = handle & WORD_GENERATION;
    unsigned waited = 0;
    int result = LOOK_AGAIN;
    while (result == LOOK_AGAIN) {
        uint64_t word = atomic_load(&r->word);
        if (!is_current(word, generation)) return VRANGE_GONE;
        if (word_state(word) == BUSY) {
            if (!start) start = stats_now_ns();
            fast = false;
            wait_a_little(&waited);
        } else if (word_state(word) == RESIDENT) {
            if (only_whole && word & WORD_LOST) return VRANGE_PURGED;
            if ((word & WORD_PINS) == WORD_PINS) return -EOVERFLOW;
            if (!atomic_compare_exchange_weak(&r->word, &word, word + WORD_PIN)) continue;
            if (word_pins(word) == 0) stats_idle(r->arena->account, -(int64_t)range_bytes(r));
            result = word & WORD_LOST ? VRANGE_PURGED : VRANGE_OK;
        } else {
            if (!start) start = stats_now_ns();
            fast = false;
            gate_enter();
            result = pin_slowly(r, generation, only_whole);
            if (result != VRANGE_OK && !rung_holds()) {
                ranges_mend();
                if (result < 0) result = LOOK_AGAIN;
            }
            gate_leave();
        }
    }
    if (result == VRANGE_OK) {
        const int kind = (int)r->arena->account->kind;
        count_use(r);
        if (fast) {
            stats_record_fast(STATS_FAST_PIN, kind, VRANGE_REALLOCATE_RESIDENT, start);
        } else {
            stats_was_slow(STATS_FAST_PIN);
            vrange_latency_record(kind, VRANGE_REALLOCATE_RESIDENT, stats_now_ns() - start);
        }
    } else if (result == VRANGE_PURGED && !only_whole) {
        count_use(r);
        atomic_store_explicit(&r->released_ns, start ? start : os_now_ns(), memory_order_relaxed);
    }
    return result;
}

int vrange_pin(uint64_t handle) { return pin(handle, false); }

int vrange_pin_whole(uint64_t handle) { return pin(handle, true); }

/* BUSY, out of every account but the totals: the memory goes, and the place with it. */
static void finish_free(range *r, bool has_pages) {
    if (has_pages) empty(r);
    forget_lost_pages(r);
    free(r->sentinel_words);
    r->sentinel_words = NULL;
    arena_give(r);
}

int vrange_release(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    const uint64_t generation = handle & WORD_GENERATION;
    const uint64_t start = os_now_ns();
    uint64_t word = atomic_load(&r->word);
    for (;;) {
        if ((word & WORD_GENERATION) != generation || word_pins(word) == 0) return VRANGE_GONE;
        if (word_pins(word) > 1) {
            if (atomic_compare_exchange_weak(&r->word, &word, word - WORD_PIN)) return VRANGE_OK;
            continue;
        }
        if (word & WORD_DOOMED) {
            gate_enter();
            bool ours = atomic_compare_exchange_strong(
                &r->word, &word, ((word - WORD_PIN) & ~WORD_STATE) | BUSY);
            if (ours) finish_free(r, true);
            gate_leave();
            if (ours) return VRANGE_OK;
            continue;
        }
        vrange_account *account = r->arena->account;
        const int64_t bytes = (int64_t)range_bytes(r);
        /* Counted before it is idle: afterwards the reserve may already have taken it on. */
        stats_idle(account, bytes);
        atomic_store_explicit(&r->released_ns, start, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(&r->word, &word, word - WORD_PIN)) {
            stats_idle(account, -bytes);
            continue;
        }
        if (reserve_is_absent()) {
            reserve_offer_now(r, generation);
            vrange_latency_record((int)account->kind, VRANGE_FREE_RELEASED, stats_now_ns() - start);
        } else {
            const bool timed = stats_times_fast(STATS_FAST_RELEASE);
            stats_record_fast(STATS_FAST_RELEASE, (int)account->kind, VRANGE_FREE_RELEASED,
                              timed ? start : 0);
        }
        return VRANGE_OK;
    }
}

/* ---- making and ending ranges ----------------------------------------------------------------- */

static int take_range(vrange_arena *arena, size_t bytes, float cost_ns, uint32_t uses, range **out) {
    const size_t page = os_page_bytes();
    if (bytes == 0) return -EINVAL;
    if (bytes / page >= UINT32_MAX) return -ENOMEM;
    int result = arena_take(arena, (uint32_t)((bytes + page - 1) / page), out);
    if (result < 0) return result;
    range *r = *out;
    r->cost_ns = cost_ns > 0 ? cost_ns : UNKNOWN_COST_NS;
    atomic_store(&r->uses, uses < USES_MOST - USE ? uses + USE : USES_MOST);
    atomic_store(&r->epoch, atomic_load(&arena->epoch));
    arena_count_request(arena);
    return VRANGE_OK;
}

static int hand_out(range *r, int filled, uint64_t *handle) {
    uint64_t word = atomic_load(&r->word);
    if (filled < 0) {
        finish_free(r, true);
        return filled;
    }
    *handle = range_handle(r, word);
    put_state(r, word + WORD_PIN, RESIDENT);
    return VRANGE_OK;
}

/* Whether what failed may be tried again: it failed because somebody closed the userfaultfd. */
static bool was_mended(int result) {
    if (result >= 0 || result == -ENOMEM || rung_holds()) return false;
    ranges_mend();
    return true;
}

int vrange_allocate(vrange_arena *arena, size_t bytes, uint64_t *handle) {
    range *r;
    gate_enter();
    reserve_ensure();
    int result;
    do {
        result = take_range(arena, bytes, 0, 0, &r);
        if (result == VRANGE_OK)
            result = hand_out(r, fill_zero(range_address(r), range_bytes(r)), handle);
    } while (was_mended(result));
    gate_leave();
    return result;
}

int vrange_store(vrange_arena *arena, const vrange_part *parts, size_t count, uint64_t cost_ns,
                 uint32_t uses, uint64_t *handle) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += parts[i].bytes;
    range *r;
    gate_enter();
    reserve_ensure();
    int result;
    do {
        result = take_range(arena, bytes, (float)cost_ns, uses, &r);
        if (result == VRANGE_OK)
            result = hand_out(r, fill_parts(range_address(r), parts, count), handle);
    } while (was_mended(result));
    gate_leave();
    return result;
}

/* BUSY and current, in `state`: leaves the books and goes. */
static void free_busy(range *r, uint64_t state) {
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    if (state == RESIDENT) stats_idle(account, -bytes);
    if (state == OFFERED) count_offer_over(r);
    if (state == PURGED) untally(&account->purged_bytes, (uint64_t)bytes);
    finish_free(r, state != PURGED);
}

/* Frees at once or dooms. Inside the gate. */
static int free_or_doom(range *r, uint64_t generation) {
    for (;;) {
        uint64_t word;
        int result = take_busy(r, generation, &word);
        if (result == VRANGE_OK) {
            free_busy(r, word_state(word));
            return VRANGE_OK;
        }
        if (result != VRANGE_HELD) return result;
        if (atomic_compare_exchange_strong(&r->word, &word, word | WORD_DOOMED)) return VRANGE_OK;
    }
}

int vrange_free(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    gate_enter();
    int result = free_or_doom(r, handle & WORD_GENERATION);
    gate_leave();
    return result;
}

void range_abandon(range *r, vrange_arena *arena) {
    /* The word is read before the owner: if the range changes hands between, its generation did. */
    uint64_t word = atomic_load(&r->word);
    if (atomic_load(&r->arena) == arena && word_state(word) != FREE)
        free_or_doom(r, word & WORD_GENERATION);
}

/* ---- what the owner asks and says ------------------------------------------------------------- */

int vrange_set_partial(uint64_t handle, int partial) {
    range *r = range_of(handle);
    uint64_t word = r ? atomic_load(&r->word) : 0;
    do {
        if (!r || !is_current(word, handle & WORD_GENERATION)) return VRANGE_GONE;
        if (word_pins(word) == 0) return -EBUSY;
    } while (!atomic_compare_exchange_weak(
        &r->word, &word, partial ? word | WORD_PARTIAL : word & ~WORD_PARTIAL));
    return VRANGE_OK;
}

/* One more pin of a range that has one: its other holders may let go at any moment, and the reserve
 * would then use what the caller is about to change. */
static int keep_pinned(range *r, uint64_t generation, uint64_t *word) {
    for (;;) {
        if (!is_current(*word, generation)) return VRANGE_GONE;
        if (word_pins(*word) == 0) return -EBUSY;
        if ((*word & WORD_PINS) == WORD_PINS) return -EOVERFLOW;
        if (atomic_compare_exchange_weak(&r->word, word, *word + WORD_PIN)) return VRANGE_OK;
    }
}

int vrange_refilled(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    int result = VRANGE_OK;
    bool kept = false;
    gate_enter();
    uint64_t word = atomic_load(&r->word);
    vrange_arena *arena = r->arena;
    if (!is_current(word, handle & WORD_GENERATION) || !arena) {
        result = VRANGE_GONE;
    } else if ((result = keep_pinned(r, handle & WORD_GENERATION, &word)) == VRANGE_OK) {
        if (word & WORD_LOST) {
            pthread_mutex_lock(&arena->lock);
            atomic_fetch_and(&r->word, ~WORD_LOST);
            forget_lost_pages(r);
            pthread_mutex_unlock(&arena->lock);
            vrange_latency_record(arena->account->kind, VRANGE_REALLOCATE_PURGED,
                                  os_now_ns() - atomic_load(&r->released_ns));
        }
        kept = true;
    }
    gate_leave();
    if (kept) vrange_release(handle);
    return result;
}

/* Offered pages the kernel would not take, because another processor still has them in a batch on
 * their way to its lists: asked again, and at last discarded by ourselves. */
static void discard_now(range *r) {
    char *address = range_address(r);
    const size_t bytes = range_bytes(r);
    for (int tries = 0; tries < 3; tries++) {
        if (vrange_rung() == VRANGE_RUNG_EAGER) break;
        if (os_lazyfree(address, bytes) < 0 || os_pageout(address, bytes) < 0) break;
        if (!os_is_resident(address) && !os_is_resident(address + bytes - os_page_bytes())) break;
    }
}

int vrange_discard(uint64_t handle) {
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    gate_enter();
    uint64_t word;
    int result = take_busy(r, handle & WORD_GENERATION, &word);
    if (result == VRANGE_OK && word_state(word) == PURGED) {
        put_state(r, word, PURGED);
    } else if (result == VRANGE_OK) {
        vrange_account *account = r->arena->account;
        const int64_t bytes = (int64_t)range_bytes(r);
        discard_now(r);
        if (word_state(word) == RESIDENT) stats_idle(account, -bytes);
        else count_offer_over(r);
        tally(&account->purged_total, (uint64_t)bytes);
        discard_rest(r, word);
        arena_list_lost(r);
    }
    gate_leave();
    return result;
}

static size_t resident_bytes(range *r) {
    unsigned char seen[4096];
    const size_t page = os_page_bytes();
    size_t resident = 0;
    for (uint32_t from = 0; from < r->pages; from += sizeof seen) {
        uint32_t count = r->pages - from < sizeof seen ? r->pages - from : (uint32_t)sizeof seen;
        if (os_residency(range_address(r) + (size_t)from * page, count * page, seen) < 0) break;
        for (uint32_t i = 0; i < count; i++) resident += seen[i] * page;
    }
    return resident;
}

/* The word once it is not BUSY; 0 where the range is gone. */
static uint64_t settled_word(range *r, uint64_t generation) {
    unsigned waited = 0;
    for (;;) {
        uint64_t word = atomic_load(&r->word);
        if (!is_current(word, generation)) return 0;
        if (word_state(word) != BUSY) return word;
        wait_a_little(&waited);
    }
}

static int state_in(uint64_t word) {
    static const int states[] = {[FREE] = VRANGE_STATE_FREED,
                                 [RESIDENT] = VRANGE_STATE_IDLE,
                                 [OFFERED] = VRANGE_STATE_OFFERED,
                                 [PURGED] = VRANGE_STATE_PURGED};
    return word_pins(word) ? VRANGE_STATE_PINNED : states[word_state(word)];
}

int vrange_state(uint64_t handle) {
    range *r = range_of(handle);
    return r ? state_in(settled_word(r, handle & WORD_GENERATION)) : VRANGE_STATE_FREED;
}

int vrange_set_cost(uint64_t handle, uint64_t cost_ns) {
    range *r = range_of(handle);
    if (!r || !is_current(atomic_load(&r->word), handle & WORD_GENERATION)) return VRANGE_GONE;
    r->cost_ns = (float)cost_ns;
    return VRANGE_OK;
}

static void describe(range *r, uint64_t word, vrange_range_info *out) {
    out->state = state_in(word);
    out->lost = !!(word & WORD_LOST);
    out->pins = (uint32_t)word_pins(word);
    out->address = range_address(r);
    out->bytes = range_bytes(r);
    out->resident_bytes = resident_bytes(r);
}

int vrange_range_read(uint64_t handle, vrange_range_info *out) {
    memset(out, 0, sizeof *out);
    range *r = range_of(handle);
    if (!r) return VRANGE_GONE;
    for (;;) {
        /* Nobody may free it meanwhile: it is ours, or has a pin more. */
        uint64_t word;
        gate_enter();
        int result = take_busy(r, handle & WORD_GENERATION, &word);
        if (result == VRANGE_OK) {
            describe(r, word, out);
            put_state(r, word, word_state(word));
        }
        gate_leave();
        if (result != VRANGE_HELD) return result;
        if (atomic_compare_exchange_strong(&r->word, &word, word + WORD_PIN)) {
            describe(r, word, out);
            vrange_release(handle);
            return VRANGE_OK;
        }
    }
}

void *vrange_address(uint64_t handle) {
    range *r = range_of(handle);
    /* A doomed range is still there for those who have it pinned. */
    bool there = r && (atomic_load(&r->word) & WORD_GENERATION) == (handle & WORD_GENERATION) &&
                 word_state(atomic_load(&r->word)) != FREE;
    return there ? range_address(r) : NULL;
}

uint32_t vrange_uses(uint64_t handle) {
    range *r = range_of(handle);
    if (!r || !is_current(atomic_load(&r->word), handle & WORD_GENERATION)) return 0;
    vrange_arena *arena = r->arena;
    return arena ? uses_aged(r, atomic_load(&arena->epoch)) : 0;
}

static size_t list_lost(const range *r, vrange_block *out, size_t capacity) {
    const size_t page_bytes = os_page_bytes();
    size_t count = 0;
    bool joins = false;
    for (uint32_t page = 0; page < r->pages; page++) {
        bool lost = !r->lost_pages || r->lost_pages[page / 64] >> page % 64 & 1;
        if (lost && !joins && count++ < capacity)
            out[count - 1] = (vrange_block){page * page_bytes, 0};
        if (lost && count <= capacity) out[count - 1].bytes += page_bytes;
        joins = lost;
    }
    return count;
}

int64_t vrange_lost_blocks(uint64_t handle, vrange_block *out, size_t capacity) {
    range *r = range_of(handle);
    if (!r) return 0;
    size_t count = 0;
    uint64_t word;
    gate_enter();
    int result = take_busy(r, handle & WORD_GENERATION, &word);
    if (result == VRANGE_OK) {
        if (word & WORD_LOST) count = list_lost(r, out, capacity);
        put_state(r, word, word_state(word));
    } else if (result == VRANGE_HELD) {
        /* Pinned, so only vrange_refilled can change what is lost. */
        vrange_arena *arena = r->arena;
        pthread_mutex_lock(&arena->lock);
        if (word & WORD_LOST && atomic_load(&r->word) & WORD_LOST)
            count = list_lost(r, out, capacity);
        pthread_mutex_unlock(&arena->lock);
    }
    gate_leave();
    return (int64_t)count;
}

/* ---- for the reserve -------------------------------------------------------------------------- */

bool range_offer_begin(range *r, uint64_t generation) {
    uint64_t word = atomic_load(&r->word);
    if (!is_current(word, generation) || word_state(word) != RESIDENT || word_pins(word))
        return false;
    if (!atomic_compare_exchange_strong(&r->word, &word, (word & ~WORD_STATE) | BUSY)) return false;
    if (vrange_rung() == VRANGE_RUNG_SENTINEL && !sentinel_place(r)) {
        put_state(r, word, RESIDENT);
        return false;
    }
    return true;
}

void range_offer_end(range *r, bool offered) {
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    uint64_t word = atomic_load(&r->word);
    if (!offered) {
        if (r->sentinel_words) sentinel_remove(r);
        put_state(r, word, RESIDENT);
        return;
    }
    vrange_latency_record(account->kind, VRANGE_FREE_OFFERED,
                          os_now_ns() - atomic_load(&r->released_ns));
    stats_offered(account, bytes);
    stats_idle(account, -bytes); /* second: in between it must not look pinned */
    put_state(r, word, OFFERED);
}

/* Of a partial range the kernel may go on and take the rest, too: nothing is touched, it only counts
 * as purged what is gone. False: nothing more than was known. */
static bool count_missing(range *r, uint32_t missing) {
    if (missing <= r->missing_pages) return false;
    const uint64_t bytes = (uint64_t)(missing - r->missing_pages) * os_page_bytes();
    tally(&r->arena->account->purged_bytes, bytes); /* first: it must not look pinned */
    stats_offered(r->arena->account, -(int64_t)bytes);
    r->missing_pages = missing;
    return true;
}

bool range_collect(range *r, uint64_t generation) {
    uint64_t word = atomic_load(&r->word);
    if (!is_current(word, generation) || word_state(word) != OFFERED) return false;
    /* Not ours yet: it may be freed under our eyes, and its descriptor then is in no arena. */
    vrange_arena *arena = atomic_load(&r->arena);
    if (!arena) return false;
    /* The kernel takes pages in the order they were offered, so the first goes first. What loses
     * others only, to MADV_PAGEOUT, is found by its next pin. */
    if (os_is_resident(arena->base + (size_t)r->first_page * os_page_bytes())) return false;
    if (!atomic_compare_exchange_strong(&r->word, &word, (word & ~WORD_STATE) | BUSY)) return false;
    const uint32_t missing = r->pages - (uint32_t)(resident_bytes(r) / os_page_bytes());
    if (word & WORD_PARTIAL && missing < r->pages) {
        bool is_news = count_missing(r, missing);
        put_state(r, word, OFFERED);
        return is_news;
    }
    count_offer_over(r);
    tally(&arena->account->purged_total, range_bytes(r));
    discard_rest(r, word);
    arena_list_lost(r);
    return true;
}

void ranges_mend(void) {
    static pthread_mutex_t mending = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mending);
    if (!rung_holds()) {
        int result = rung_open_again();
        if (result == 0) result = arenas_register_again(rung_userfault());
        if (result == 0) result = arrays_mend(rung_userfault());
        if (result < 0) rung_fall(result);
        for (uint32_t index = 1; index < table_count(); index++) {
            range *r = table_at(index);
            uint64_t word = atomic_load(&r->word);
            if (word_state(word) == OFFERED) range_shed(r, word & WORD_GENERATION);
        }
    }
    pthread_mutex_unlock(&mending);
}

bool range_shed(range *r, uint64_t generation) {
    uint64_t word;
    if (take_busy(r, generation, &word) != VRANGE_OK) return false;
    if (word_state(word) == PURGED) {
        put_state(r, word, PURGED);
        return false;
    }
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    if (word_state(word) == RESIDENT) stats_idle(account, -bytes);
    else count_offer_over(r);
    tally(&account->shed_total, (uint64_t)bytes);
    discard_rest(r, word);
    arena_list_lost(r);
    return true;
}

size_t vrange_page_bytes(void) { return os_page_bytes(); }
