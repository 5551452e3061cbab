/* Counters and latency histograms.
 *
 * Recording never waits. Counters are relaxed atomics in the stats segment. Histograms are sharded by
 * thread, so that few threads share a cache line and most need no locked instruction. A reader sums the
 * shards while they go on changing; each single number only grows, so a reader never sees one go
 * backwards. The core never calls the metrics; the metrics read these counters.
 *
 * An account is a slot of the segment. A closed account keeps its name and counts until its slot is
 * needed, and continues them when the name is opened again. So a scraper sees one counter and not a new
 * one at each opening, while the account's owner still reads from zero (`before`). There are 256 slots. A
 * closed account that makes room adds its counts to "other". If all accounts are open, the next one counts
 * into "other" as well: sums stay right, and the number of labels stays bounded. */
#include "counters/stats.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/gate.h"
#include "counters/segment.h"

_Atomic uint64_t stats_idle_bytes, stats_offered_bytes;
_Atomic uint64_t stats_copying_bytes;
_Thread_local stats_fast_path stats_fast[STATS_FASTS];

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

static counts counts_of(segment_account *account) {
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
    return atomic_load(&account->state) == ACCOUNT_CLOSED && atomic_load(&account->ranges) == 0 &&
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
    uint32_t unused = ACCOUNT_FREE;
    atomic_compare_exchange_strong(&other->state, &unused, ACCOUNT_CLOSED);
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
    atomic_store(&account->state, ACCOUNT_OPEN);
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
    atomic_store(&account->state, ACCOUNT_CLOSED);
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
}

void vrange_account_read(vrange_account *account, vrange_account_counters *out) {
    memset(out, 0, sizeof *out);
    memcpy(out->name, account->name, VRANGE_NAME_BYTES);
    out->kind = (int)account->kind;
    out->ranges = account->ranges;
    out->reserved_bytes = account->reserved_bytes;
    out->idle_bytes = account->idle_bytes;
    out->offered_bytes = account->offered_bytes;
    out->purged_bytes = account->purged_bytes;
    /* Whatever is neither of these is pinned. The four figures are read one after another while they
     * change. */
    uint64_t all = account->range_bytes;
    uint64_t volatile_bytes = out->idle_bytes + out->offered_bytes + out->purged_bytes;
    out->pinned_bytes = all > volatile_bytes ? all - volatile_bytes : 0;
    out->hot_bytes = account->hot_bytes;
    out->object_bytes = account->object_bytes;
    const counts now = counts_of(account), before = accounts.before[slot_of(account)];
    out->purged_total = now.purged_total - before.purged_total;
    out->shed_total = now.shed_total - before.shed_total;
    out->regenerated = now.regenerated - before.regenerated;
    out->regenerate_ns = now.regenerate_ns - before.regenerate_ns;
    out->refaults = now.refaults - before.refaults;
    out->refused = now.refused - before.refused;
    for (int i = 0; i < VRANGE_REQUESTS; i++)
        out->requests[i] = now.requests[i] - before.requests[i];
}

size_t vrange_accounts_read(vrange_account_counters *out, size_t capacity) {
    size_t count = 0;
    segment_header *segment = segment_make();
    if (!segment) return 0;
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    for (uint32_t slot = 0; slot < atomic_load(&segment->accounts_used); slot++) {
        segment_account *account = account_at(slot);
        if (atomic_load(&account->state) != ACCOUNT_OPEN) continue;
        if (count < capacity) vrange_account_read(account, &out[count]);
        count++;
    }
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return count;
}

void vrange_account_refused(vrange_account *account) { tally(&account->refused, 1); }

uint64_t *vrange_account_hot(vrange_account *account) { return (uint64_t *)&account->hot_bytes; }

void stats_idle(vrange_account *account, int64_t by) {
    tally(&account->idle_bytes, (uint64_t)by);
    tally(&stats_idle_bytes, (uint64_t)by);
}

void stats_offered(vrange_account *account, int64_t by) {
    tally(&account->offered_bytes, (uint64_t)by);
    tally(&stats_offered_bytes, (uint64_t)by);
}

/* ---- latencies -------------------------------------------------------------------------------- */

#define EIGHTHS 8

/* NULL: none is assigned yet, or this thread shares shard 0. */
static _Thread_local segment_histogram *own_shard;
static _Thread_local bool shares_shard;

static size_t bucket_of(uint64_t nanoseconds) {
    if (nanoseconds < EIGHTHS) return (size_t)nanoseconds;
    unsigned octave = 63u - (unsigned)__builtin_clzll(nanoseconds) - 3u;
    size_t bucket = EIGHTHS + EIGHTHS * octave + ((nanoseconds >> octave) & (EIGHTHS - 1));
    return bucket < VRANGE_BUCKETS ? bucket : VRANGE_BUCKETS - 1;
}

uint64_t vrange_bucket_floor_ns(size_t bucket) {
    if (bucket < EIGHTHS) return bucket;
    size_t octave = (bucket - EIGHTHS) / EIGHTHS, eighth = (bucket - EIGHTHS) % EIGHTHS;
    return (uint64_t)(EIGHTHS + eighth) << octave;
}

static void record(segment_histogram *histogram, uint64_t nanoseconds) {
    tally(&histogram->sum_ns, nanoseconds);
    tally(&histogram->buckets[bucket_of(nanoseconds)], 1);
}

/* In a histogram of the thread's own shard. */
static inline void record_alone(segment_histogram *histogram, uint64_t nanoseconds, size_t bucket) {
    tally_alone(&histogram->sum_ns, nanoseconds);
    tally_alone(&histogram->buckets[bucket], 1);
}

static bool is_latency(int kind, int latency) {
    return kind >= 0 && kind < VRANGE_KINDS && latency >= 0 && latency < VRANGE_LATENCIES;
}

/* Runs once a thread. The first threads get a shard each; the others share shard 0, which has memory
 * behind it from the beginning. The shard of a thread that ended is not reused: the next owner would have
 * to know that it sees the last write. */
static void take_shard(segment_header *segment) {
    uint32_t used = atomic_load(&segment->shards_used);
    while (used < SEGMENT_SHARDS) {
        uint32_t next = used ? used : 1;
        if (!segment_back(segment, segment_shard(segment, next), segment->shard_bytes)) break;
        if (!atomic_compare_exchange_strong(&segment->shards_used, &used, next + 1)) continue;
        own_shard = segment_shard(segment, next);
        return;
    }
    shares_shard = true;
}

/* The thread's first record, or any of a thread that has no shard of its own. Not inlined: the registers that
 * it saves would be saved at every record. */
__attribute__((noinline)) static void record_without_shard(int which, uint64_t nanoseconds) {
    segment_header *segment = segment_make();
    if (!segment) return;
    if (!shares_shard) take_shard(segment);
    if (own_shard) record_alone(&own_shard[which], nanoseconds, bucket_of(nanoseconds));
    else record(&segment_shard(segment, 0)[which], nanoseconds);
}

void vrange_latency_record(int kind, int latency, uint64_t nanoseconds) {
    if (!RECORDING || !is_latency(kind, latency)) return;
    const int which = kind * VRANGE_LATENCIES + latency;
    segment_histogram *shard = own_shard;
    if (shard) record_alone(&shard[which], nanoseconds, bucket_of(nanoseconds));
    else record_without_shard(which, nanoseconds);
}

void stats_record_fast(int which, int kind, int latency, uint64_t start_ns) {
    if (!RECORDING) return;
    stats_fast_path *path = &stats_fast[which];
    if (start_ns) {
        path->ns = os_now_ns() - start_ns;
        path->bucket = (uint32_t)bucket_of(path->ns);
    }
    segment_histogram *shard = own_shard;
    if (shard) record_alone(&shard[kind * VRANGE_LATENCIES + latency], path->ns, path->bucket);
    else vrange_latency_record(kind, latency, path->ns);
}

void vrange_latency_read(int kind, int latency, vrange_histogram *out) {
    memset(out, 0, sizeof *out);
    segment_header *segment = segment_make();
    if (!is_latency(kind, latency) || !segment) return;
    for (uint32_t shard = 0; shard < SEGMENT_SHARDS; shard++) {
        if (shard > 0 && shard >= atomic_load(&segment->shards_used)) break;
        segment_histogram *histogram =
            &segment_shard(segment, shard)[kind * VRANGE_LATENCIES + latency];
        out->sum_ns += histogram->sum_ns;
        for (size_t bucket = 0; bucket < VRANGE_BUCKETS; bucket++)
            out->buckets[bucket] += histogram->buckets[bucket];
    }
    /* From the buckets, so that the count is always their sum. */
    for (size_t bucket = 0; bucket < VRANGE_BUCKETS; bucket++) out->count += out->buckets[bucket];
}

void vrange_account_regenerated(vrange_account *account, uint64_t nanoseconds) {
    record(&account->regenerate, nanoseconds);
}

/* ---- figures of the whole process -------------------------------------------------------------- */

void stats_stack_returned(uint64_t bytes) {
    segment_header *segment = segment_make();
    if (segment) tally(&segment->stack_returned_bytes, bytes);
}

void stats_trimmed(void) {
    segment_header *segment = segment_make();
    if (segment) tally(&segment->trims, 1);
}

void stats_stack_used(uint64_t used, uint64_t limit) {
    segment_header *segment = segment_make();
    if (!segment || limit == 0) return;
    /* Keeps the stack nearest to its end, not the deepest. Two threads at once may store the lesser one:
     * the next use of that stack reports it again. */
    uint64_t most = segment->stack_high_water_bytes, of = segment->stack_limit_bytes;
    if (of && (double)used / (double)limit <= (double)most / (double)of) return;
    atomic_store_explicit(&segment->stack_limit_bytes, limit, memory_order_relaxed);
    atomic_store_explicit(&segment->stack_high_water_bytes, used, memory_order_relaxed);
}

void stats_rung_changed(void) {
    segment_header *segment = atomic_load(&segment_here);
    if (segment) atomic_store(&segment->rung, (uint32_t)vrange_rung());
}

void stats_pressure_level(int level) {
    segment_header *segment = segment_make();
    if (!segment) return;
    atomic_store_explicit(&segment->pressure_level, (uint64_t)level, memory_order_relaxed);
    tally(&segment->pressure_changes[level], 1);
}

void stats_pressure_acted(int action, int outcome, uint64_t bytes) {
    segment_header *segment = segment_make();
    if (!segment) return;
    tally(&segment->pressure_actions[action][outcome], 1);
    tally(&segment->pressure_returned_bytes[action], bytes);
}

/* ---- fork ------------------------------------------------------------------------------------- */

void stats_after_fork(void) {
    segment_header *segment = atomic_load(&segment_here);
    own_shard = NULL;
    shares_shard = false;
    if (!segment) {
        segment_after_fork();
        return;
    }
    const uint32_t used = atomic_load(&segment->accounts_used);
    static counts counted[SEGMENT_ACCOUNTS]; /* too large for the last pages of a deep stack */
    for (uint32_t slot = 0; slot < used; slot++) counted[slot] = counts_of(account_at(slot));
    segment_after_fork();
    for (uint32_t slot = 0; slot < used; slot++) {
        counts *before = &accounts.before[slot];
        before->purged_total -= counted[slot].purged_total;
        before->shed_total -= counted[slot].shed_total;
        before->refaults -= counted[slot].refaults;
        before->refused -= counted[slot].refused;
        for (int i = 0; i < VRANGE_REQUESTS; i++)
            before->requests[i] -= counted[slot].requests[i];
        before->regenerated -= counted[slot].regenerated;
        before->regenerate_ns -= counted[slot].regenerate_ns;
    }
}

void vrange_heap_trimmed(uint64_t nanoseconds) {
    stats_trimmed();
    vrange_latency_record(VRANGE_KIND_HEAP, VRANGE_FREE_RELEASED, nanoseconds);
}
