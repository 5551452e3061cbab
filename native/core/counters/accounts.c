/* Accounts: counts under a name.
 *
 * An account is a slot of the segment. A closed account keeps its name and counts until its slot is
 * needed, and continues them when the name is opened again. So a scraper sees one counter and not a new
 * one at each opening, while the account's owner still reads from zero (`before`). There are 256 slots. A
 * closed account that makes room adds its counts to "other". If all accounts are open, the next one counts
 * into "other" as well: sums stay right, and the number of labels stays bounded. */
#include "counters/accounts.h"

#include <pthread.h>
#include <string.h>

#include "base/gate.h"
#include "counters/latencies.h"
#include "counters/segment.h"
#include "counters/tally.h"
#include "vrange.h"

/* What a slot had counted when it was last opened. Subtracted modulo 2^64: in the child of a fork this is
 * negative, because the segment counts from zero there and the owner continues from its parent's count. */
typedef struct {
    uint64_t purged_total, shed_total, refaults, requests[VRANGE_REQUESTS], refused;
    uint64_t regenerated, regenerate_ns;
} counts;

static struct {
    pthread_mutex_t lock;
    counts before[SEGMENT_ACCOUNTS];
    uint64_t closed_at[SEGMENT_ACCOUNTS], closings;
} accounts = {.lock = PTHREAD_MUTEX_INITIALIZER};

static segment_account *account_at(uint32_t slot) {
    return (segment_account *)(void *)((char *)segment_accounts(segment_here) +
                                       (size_t)slot * SEGMENT_PAGE);
}

static uint32_t slot_of(const segment_account *account) {
    return (uint32_t)(((const char *)account - (const char *)segment_accounts(segment_here)) /
                      SEGMENT_PAGE);
}

static counts counts_of(const segment_account *account) {
    counts all = {.purged_total = account->purged_total,
                  .shed_total = account->shed_total,
                  .refaults = account->refaults,
                  .refused = account->refused,
                  .regenerate_ns = account->regenerate.sum_ns};
    for (int i = 0; i < VRANGE_REQUESTS; i++) all.requests[i] = account->requests[i];
    for (size_t b = 0; b < VRANGE_BUCKETS; b++) all.regenerated += account->regenerate.buckets[b];
    return all;
}

static bool is_unused(segment_account *account) {
    return atomic_load(&account->state) == VRANGE_ACCOUNT_CLOSED && atomic_load(&account->ranges) == 0 &&
           atomic_load(&account->reserved_bytes) == 0;
}

/* The closed account's owner is gone, but another thread may be counting into it right now: so the count
 * is moved and not copied. */
static void move(_Atomic uint64_t *to, _Atomic uint64_t *from) {
    uint64_t counted = atomic_load(from);
    tally(to, counted);
    untally(from, counted);
}

static void leave_to_other(segment_account *account) {
    segment_account *other = account_at(account->kind);
    uint32_t unused = VRANGE_ACCOUNT_FREE;
    atomic_compare_exchange_strong(&other->state, &unused, VRANGE_ACCOUNT_CLOSED);
    move(&other->purged_total, &account->purged_total);
    move(&other->shed_total, &account->shed_total);
    move(&other->refaults, &account->refaults);
    move(&other->refused, &account->refused);
    for (int i = 0; i < VRANGE_REQUESTS; i++) move(&other->requests[i], &account->requests[i]);
    move(&other->regenerate.sum_ns, &account->regenerate.sum_ns);
    for (size_t b = 0; b < VRANGE_BUCKETS; b++)
        move(&other->regenerate.buckets[b], &account->regenerate.buckets[b]);
}

static void name_slot(segment_account *account, const char *name, int kind) {
    account->kind = (uint32_t)kind;
    memset(account->name, 0, sizeof account->name);
    strncpy(account->name, name, VRANGE_NAME_BYTES - 1);
}

/* The slot that this name had before; else a fresh one; else the slot that was closed longest ago. */
static segment_account *take_slot(segment_header *segment, const char *name, int kind) {
    const uint32_t used = atomic_load(&segment->accounts_used);
    segment_account *oldest = NULL;
    for (uint32_t slot = VRANGE_KINDS; slot < used; slot++) {
        segment_account *account = account_at(slot);
        if (!is_unused(account)) continue;
        if ((int)account->kind == kind && strncmp(account->name, name, VRANGE_NAME_BYTES - 1) == 0)
            return account;
        if (!oldest || accounts.closed_at[slot] < accounts.closed_at[slot_of(oldest)])
            oldest = account;
    }
    if (used < SEGMENT_ACCOUNTS && segment_back(segment, account_at(used), sizeof(segment_account))) {
        segment_account *fresh = account_at(used);
        name_slot(fresh, name, kind);
        atomic_store(&segment->accounts_used, used + 1);
        return fresh;
    }
    if (oldest) {
        atomic_fetch_add(&segment->turn, 1);
        leave_to_other(oldest);
        name_slot(oldest, name, kind);
        atomic_fetch_add(&segment->turn, 1);
    }
    return oldest;
}

vrange_account *vrange_account_open(const char *name, int kind) {
    if (kind < 0 || kind >= VRANGE_KINDS) return NULL;
    segment_header *segment = segment_make();
    if (!segment) return NULL;
    atomic_store(&segment->rung, (uint32_t)vrange_rung());
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    segment_account *account = take_slot(segment, name, kind);
    if (account) {
        atomic_store(&account->hot_bytes, 0);
        atomic_store(&account->object_bytes, 0);
        accounts.before[slot_of(account)] = counts_of(account);
    } else {
        account = account_at((uint32_t)kind);
    }
    atomic_store(&account->state, VRANGE_ACCOUNT_OPEN);
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return account;
}

void vrange_account_close(vrange_account *account) {
    const uint32_t slot = slot_of(account);
    if (slot < VRANGE_KINDS) return; /* others count into it as well */
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    accounts.closed_at[slot] = ++accounts.closings;
    atomic_store(&account->hot_bytes, 0);
    atomic_store(&account->object_bytes, 0);
    atomic_store(&account->state, VRANGE_ACCOUNT_CLOSED);
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
}

static void subtract(counts *from, const counts *by) {
    from->purged_total -= by->purged_total;
    from->shed_total -= by->shed_total;
    from->refaults -= by->refaults;
    from->refused -= by->refused;
    for (int i = 0; i < VRANGE_REQUESTS; i++) from->requests[i] -= by->requests[i];
    from->regenerated -= by->regenerated;
    from->regenerate_ns -= by->regenerate_ns;
}

/* One thread's subtraction may be seen before another's addition: then a gauge is negative for a moment. */
static uint64_t gauge_of(uint64_t word) { return word <= INT64_MAX ? word : 0; }

static void describe(const segment_account *account, const counts *since, vrange_account_counters *out) {
    memset(out, 0, sizeof *out);
    memcpy(out->name, account->name, VRANGE_NAME_BYTES - 1);
    out->kind = (int)account->kind;
    out->state = (int)account->state;
    out->ranges = gauge_of(account->ranges);
    out->reserved_bytes = gauge_of(account->reserved_bytes);
    out->idle_bytes = gauge_of(account->idle_bytes);
    out->offered_bytes = gauge_of(account->offered_bytes);
    out->purged_bytes = gauge_of(account->purged_bytes);
    /* Whatever is neither of these is pinned. The four figures are read one after another while they
     * change. */
    uint64_t all = gauge_of(account->range_bytes);
    uint64_t volatile_bytes = out->idle_bytes + out->offered_bytes + out->purged_bytes;
    out->pinned_bytes = all > volatile_bytes ? all - volatile_bytes : 0;
    out->hot_bytes = account->hot_bytes;
    out->object_bytes = account->object_bytes;
    out->purged_total = since->purged_total;
    out->shed_total = since->shed_total;
    out->refaults = since->refaults;
    out->refused = since->refused;
    memcpy(out->requests, since->requests, sizeof out->requests);
    out->regenerated = since->regenerated;
    out->regenerate_ns = since->regenerate_ns;
}

void vrange_account_read(vrange_account *account, vrange_account_counters *out) {
    counts since = counts_of(account);
    subtract(&since, &accounts.before[slot_of(account)]);
    describe(account, &since, out);
}

void vrange_account_read_copy(const void *slot, vrange_account_counters *out) {
    const segment_account *account = slot;
    const counts since = counts_of(account);
    describe(account, &since, out);
}

size_t vrange_accounts_read(vrange_account_counters *out, size_t capacity) {
    size_t count = 0;
    segment_header *segment = segment_make();
    if (!segment) return 0;
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    for (uint32_t slot = 0; slot < atomic_load(&segment->accounts_used); slot++) {
        segment_account *account = account_at(slot);
        if (atomic_load(&account->state) != VRANGE_ACCOUNT_OPEN) continue;
        if (count < capacity) vrange_account_read(account, &out[count]);
        count++;
    }
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return count;
}

void vrange_account_refused(vrange_account *account) { tally(&account->refused, 1); }

uint64_t *vrange_account_hot(vrange_account *account) { return (uint64_t *)&account->hot_bytes; }

void vrange_account_regenerated(vrange_account *account, uint64_t nanoseconds) {
    histogram_record(&account->regenerate, nanoseconds);
}

void accounts_after_fork(void) {
    latencies_after_fork();
    segment_header *segment = atomic_load(&segment_here);
    const uint32_t used = segment ? atomic_load(&segment->accounts_used) : 0;
    static counts counted[SEGMENT_ACCOUNTS]; /* too large for the last pages of a deep stack */
    for (uint32_t slot = 0; slot < used; slot++) counted[slot] = counts_of(account_at(slot));
    segment_after_fork();
    for (uint32_t slot = 0; slot < used; slot++) subtract(&accounts.before[slot], &counted[slot]);
}
