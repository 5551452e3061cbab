/* Accounts: counts under a name.
 *
 * An account is a slot of the segment. A closed account keeps its name and counts until its slot is
 * needed, and continues them when the name is opened again. So a scraper sees one counter and not a new
 * one at each opening, while the account's owner still reads from zero (`before`). There are 256 slots. A
 * closed account that makes room adds its counts to "other". If all accounts are open, the next ones get an
 * overflow slot each, with which their owners read their own figures; every other reader adds these to
 * "other". So sums stay right, and the number of labels stays bounded. Without room for more overflow slots,
 * the owners share "other" itself, and read its figures as theirs. */
#define _GNU_SOURCE
#include "counters/accounts.h"

#include <pthread.h>
#include <string.h>

#include "base/gate.h"
#include "counters/account_counts.h"
#include "counters/latencies.h"
#include "counters/segment.h"
#include "counters/segment_cut.h"
#include "counters/tally.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "vrange.h"

#define LOOK_NS 1000000000u

/* `before` is what a slot had counted when it was last opened. Subtracted modulo 2^64: in the child of a fork
 * this is negative, because the segment counts from zero there and the owner continues from its parent's
 * count. It holds until the segment's file is cut, which `cuts` shows: then the owner counts from zero, too. */
static struct {
    pthread_mutex_t lock;
    counts before[SEGMENT_SLOTS];
    uint32_t cuts[SEGMENT_SLOTS];
    uint64_t closed_at[SEGMENT_ACCOUNTS], closings;
    uint32_t closed_overflows;
} accounts = {.lock = PTHREAD_MUTEX_INITIALIZER};

static segment_account *account_at(uint32_t slot) { return segment_account_at(segment_here, slot); }

static uint32_t slot_of(const segment_account *account) { return segment_slot_of(segment_here, account); }

static segment_histogram *regenerate_of(segment_account *account) {
    return &((segment_slot *)(void *)account)->regenerate;
}

static counts counts_of(const segment_account *account) {
    const void *slot = account;
    return segment_is_overflow(slot_of(account)) ? counts_of_overflow(slot) : counts_of_slot(slot);
}

static counts before_of(uint32_t slot) {
    return accounts.cuts[slot] == segment_cuts() ? accounts.before[slot] : (counts){0};
}

static void set_before(uint32_t slot, const counts *before) {
    accounts.before[slot] = *before;
    accounts.cuts[slot] = segment_cuts();
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

static void leave_counts_to_other(segment_account *account) {
    segment_account *other = account_at(account->kind);
    uint32_t unused = VRANGE_ACCOUNT_FREE;
    atomic_compare_exchange_strong(&other->state, &unused, VRANGE_ACCOUNT_CLOSED);
    move(&other->purged_total, &account->purged_total);
    move(&other->shed_total, &account->shed_total);
    move(&other->refaults, &account->refaults);
    move(&other->refused, &account->refused);
    for (int i = 0; i < VRANGE_REQUESTS; i++) move(&other->requests[i], &account->requests[i]);
}

static void leave_computations_to_other(segment_account *account) {
    segment_histogram *to = regenerate_of(account_at(account->kind)), *from = regenerate_of(account);
    move(&to->sum_ns, &from->sum_ns);
    for (size_t b = 0; b < VRANGE_BUCKETS; b++) move(&to->buckets[b], &from->buckets[b]);
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
    if (used < SEGMENT_ACCOUNTS && segment_back(segment, account_at(used), sizeof(segment_slot))) {
        segment_account *fresh = account_at(used);
        name_slot(fresh, name, kind);
        atomic_store(&segment->accounts_used, used + 1);
        return fresh;
    }
    if (oldest) {
        atomic_fetch_add(&segment->turn, 1);
        leave_counts_to_other(oldest);
        leave_computations_to_other(oldest);
        name_slot(oldest, name, kind);
        atomic_fetch_add(&segment->turn, 1);
    }
    return oldest;
}

/* Its "other" slot goes on with the counts, and in the child of a fork with those of before the fork. */
static void clear_overflow(uint32_t slot) {
    segment_overflow *overflow = (segment_overflow *)(void *)account_at(slot);
    counts other = before_of(overflow->account.kind), before = before_of(slot);
    before.regenerated = before.regenerate_ns = 0; /* "other" had them all the time */
    leave_counts_to_other(&overflow->account);
    counts_add(&other, &before);
    set_before(overflow->account.kind, &other);
    overflow->regenerated = overflow->regenerate_ns = 0;
}

/* A slot whose account is closed, else a fresh one. NULL without room for one. */
static segment_account *take_overflow(segment_header *segment, const char *name, int kind) {
    const uint32_t end = SEGMENT_ACCOUNTS + atomic_load(&segment->overflow_used);
    for (uint32_t slot = SEGMENT_ACCOUNTS; accounts.closed_overflows && slot < end; slot++) {
        if (!is_unused(account_at(slot))) continue;
        atomic_fetch_add(&segment->turn, 1);
        clear_overflow(slot);
        name_slot(account_at(slot), name, kind);
        atomic_fetch_add(&segment->turn, 1);
        accounts.closed_overflows--;
        return account_at(slot);
    }
    if (end == SEGMENT_SLOTS || !segment_back(segment, account_at(end), SEGMENT_OVERFLOW_BYTES)) return NULL;
    name_slot(account_at(end), name, kind);
    atomic_store(&segment->overflow_used, end + 1 - SEGMENT_ACCOUNTS);
    return account_at(end);
}

static segment_account *open_slot(segment_header *segment, const char *name, int kind) {
    segment_account *account = take_slot(segment, name, kind);
    if (!account) {
        atomic_store(&account_at((uint32_t)kind)->state, VRANGE_ACCOUNT_OPEN);
        account = take_overflow(segment, name, kind);
    }
    if (account) {
        atomic_store(&account->hot_bytes, 0);
        atomic_store(&account->object_bytes, 0);
        const counts before = counts_of(account);
        set_before(slot_of(account), &before);
    } else {
        account = account_at((uint32_t)kind);
    }
    atomic_store(&account->state, VRANGE_ACCOUNT_OPEN);
    segment_cut_note_slot(segment, (uint32_t)kind);
    segment_cut_note_slot(segment, slot_of(account));
    return account;
}

vrange_account *vrange_account_open(const char *name, int kind) {
    if (kind < 0 || kind >= VRANGE_KINDS) return NULL;
    segment_header *segment = segment_make();
    if (!segment) return NULL;
    const uint32_t rung = (uint32_t)vrange_rung();
    gate_enter();
    segment_cut_arm();
    atomic_store(&segment->rung, rung);
    pthread_mutex_lock(&accounts.lock);
    segment_account *account;
    uint32_t cuts;
    do { /* again, if the name went with the file */
        cuts = segment_cuts();
        account = open_slot(segment, name, kind);
    } while (cuts != segment_cuts());
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return account;
}

void vrange_account_close(vrange_account *account) {
    const uint32_t slot = slot_of(account);
    if (slot < VRANGE_KINDS) return; /* others count into it as well */
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    if (segment_is_overflow(slot)) accounts.closed_overflows++;
    else accounts.closed_at[slot] = ++accounts.closings;
    atomic_store(&account->hot_bytes, 0);
    atomic_store(&account->object_bytes, 0);
    atomic_store(&account->state, VRANGE_ACCOUNT_CLOSED);
    segment_cut_note_slot(segment_here, slot);
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
}

/* The gauges change without end: here, now and then, they are noted as they are. */
void accounts_look(void) {
    static _Atomic uint64_t not_before_ns;
    segment_header *segment = atomic_load(&segment_here);
    const uint64_t now = os_now_coarse_ns();
    if (!segment || now < atomic_load(&not_before_ns)) return;
    atomic_store(&not_before_ns, now + LOOK_NS);
    segment_cut_arm();
    pthread_mutex_lock(&accounts.lock);
    segment_cut_note(segment);
    pthread_mutex_unlock(&accounts.lock);
}

void vrange_account_read(vrange_account *account, vrange_account_counters *out) {
    counts since = counts_of(account);
    const counts before = before_of(slot_of(account)); /* later: a cut that is found now makes both zero */
    counts_subtract(&since, &before);
    figures_of(account, &since, out);
}

/* Open and closed ones: a closed one's counts move to "other" only when its slot is used again. */
static void add_overflows(segment_header *segment, vrange_account_counters *const others[VRANGE_KINDS]) {
    const uint32_t end = SEGMENT_ACCOUNTS + atomic_load(&segment->overflow_used);
    for (uint32_t slot = SEGMENT_ACCOUNTS; slot < end; slot++) {
        vrange_account_counters one, *other = others[account_at(slot)->kind];
        if (!other) continue;
        vrange_account_read(account_at(slot), &one);
        figures_add(other, &one);
    }
}

size_t vrange_accounts_read(vrange_account_counters *out, size_t capacity) {
    size_t count = 0;
    vrange_account_counters *others[VRANGE_KINDS] = {NULL};
    segment_header *segment = segment_make();
    if (!segment) return 0;
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    for (uint32_t slot = 0; slot < atomic_load(&segment->accounts_used); slot++) {
        segment_account *account = account_at(slot);
        if (atomic_load(&account->state) != VRANGE_ACCOUNT_OPEN) continue;
        if (count < capacity) vrange_account_read(account, &out[count]);
        if (count < capacity && slot < VRANGE_KINDS) others[slot] = &out[count];
        count++;
    }
    add_overflows(segment, others);
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return count;
}

void vrange_account_refused(vrange_account *account) { tally(&account->refused, 1); }

uint64_t *vrange_account_hot(vrange_account *account) { return (uint64_t *)&account->hot_bytes; }

void vrange_account_regenerated(vrange_account *account, uint64_t nanoseconds) {
    if (segment_is_overflow(slot_of(account))) {
        segment_overflow *overflow = (segment_overflow *)(void *)account;
        tally(&overflow->regenerated, 1);
        tally(&overflow->regenerate_ns, nanoseconds);
        account = account_at(account->kind);
    }
    histogram_record(regenerate_of(account), nanoseconds);
}

void accounts_renew_lock(void) { (void)os_lock_renew(&accounts.lock); }

static void continue_from(uint32_t slot, const counts *counted) {
    counts before = before_of(slot);
    counts_subtract(&before, counted);
    set_before(slot, &before);
}

void accounts_after_fork(void) {
    latencies_after_fork();
    segment_header *segment = atomic_load(&segment_here);
    const uint32_t used = segment ? atomic_load(&segment->accounts_used) : 0;
    const uint32_t end = SEGMENT_ACCOUNTS + (segment ? atomic_load(&segment->overflow_used) : 0);
    static counts counted[SEGMENT_SLOTS]; /* too large for the last pages of a deep stack */
    for (uint32_t slot = 0; slot < used; slot++) counted[slot] = counts_of(account_at(slot));
    for (uint32_t slot = SEGMENT_ACCOUNTS; slot < end; slot++) counted[slot] = counts_of(account_at(slot));
    segment_after_fork();
    for (uint32_t slot = 0; slot < used; slot++) continue_from(slot, &counted[slot]);
    for (uint32_t slot = SEGMENT_ACCOUNTS; slot < end; slot++) continue_from(slot, &counted[slot]);
}
