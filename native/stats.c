/* Counters and latency histograms.
 *
 * Recording never waits: counters are relaxed atomics, and histograms are sharded by thread so that
 * two threads seldom share a cache line. Reading sums the shards while they go on changing; every
 * single number only grows, so a reader never sees one go backwards. Nobody calls the metrics from
 * here: they come and read. */
#include "stats.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fork.h"

_Atomic uint64_t stats_idle_bytes, stats_offered_bytes;

static struct {
    pthread_mutex_t lock;
    vrange_account *first;
} accounts = {.lock = PTHREAD_MUTEX_INITIALIZER};

static vrange_account *recycled_account(void) {
    for (vrange_account *account = accounts.first; account; account = account->next) {
        if (!atomic_load(&account->open) && atomic_load(&account->ranges) == 0 &&
            atomic_load(&account->reserved_bytes) == 0)
            return account;
    }
    return NULL;
}

vrange_account *vrange_account_open(const char *name, int kind) {
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    vrange_account *account = recycled_account();
    if (account) {
        vrange_account *next = account->next;
        memset(account, 0, sizeof *account);
        account->next = next;
    } else {
        account = calloc(1, sizeof *account);
        if (account) {
            account->next = accounts.first;
            accounts.first = account;
        }
    }
    if (account) {
        account->kind = kind;
        strncpy(account->name, name, VRANGE_NAME_BYTES - 1);
        atomic_store(&account->open, true);
    }
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return account;
}

void vrange_account_close(vrange_account *account) { atomic_store(&account->open, false); }

void vrange_account_read(vrange_account *account, vrange_account_counters *out) {
    memset(out, 0, sizeof *out);
    memcpy(out->name, account->name, VRANGE_NAME_BYTES);
    out->kind = account->kind;
    out->ranges = account->ranges;
    out->reserved_bytes = account->reserved_bytes;
    out->idle_bytes = account->idle_bytes;
    out->offered_bytes = account->offered_bytes;
    out->purged_bytes = account->purged_bytes;
    /* What is neither is pinned. The four are read one after another while they change. */
    uint64_t all = account->range_bytes;
    uint64_t volatile_bytes = out->idle_bytes + out->offered_bytes + out->purged_bytes;
    out->pinned_bytes = all > volatile_bytes ? all - volatile_bytes : 0;
    out->hot_bytes = account->hot_bytes;
    out->purged_total = account->purged_total;
    out->shed_total = account->shed_total;
    out->regenerated = account->regenerated;
    out->regenerate_ns = account->regenerate_ns;
    out->refaults = account->refaults;
    for (int i = 0; i < VRANGE_REQUESTS; i++) out->requests[i] = account->requests[i];
}

size_t vrange_accounts_read(vrange_account_counters *out, size_t capacity) {
    size_t count = 0;
    gate_enter();
    pthread_mutex_lock(&accounts.lock);
    for (vrange_account *account = accounts.first; account; account = account->next) {
        if (!atomic_load(&account->open)) continue;
        if (count < capacity) vrange_account_read(account, &out[count]);
        count++;
    }
    pthread_mutex_unlock(&accounts.lock);
    gate_leave();
    return count;
}

void vrange_account_request(vrange_account *account, int outcome) {
    if (outcome >= 0 && outcome < VRANGE_REQUESTS) tally(&account->requests[outcome], 1);
}

void vrange_account_regenerated(vrange_account *account, uint64_t nanoseconds) {
    tally(&account->regenerated, 1);
    tally(&account->regenerate_ns, nanoseconds);
}

void vrange_account_set_hot(vrange_account *account, uint64_t bytes) {
    atomic_store_explicit(&account->hot_bytes, bytes, memory_order_relaxed);
}

void stats_idle(vrange_account *account, int64_t by) {
    tally(&account->idle_bytes, (uint64_t)by);
    tally(&stats_idle_bytes, (uint64_t)by);
}

void stats_offered(vrange_account *account, int64_t by) {
    tally(&account->offered_bytes, (uint64_t)by);
    tally(&stats_offered_bytes, (uint64_t)by);
}

/* ---- latencies -------------------------------------------------------------------------------- */

#define SHARDS 8
#define EIGHTHS 8

typedef struct {
    _Atomic uint64_t sum_ns;
    _Atomic uint64_t buckets[VRANGE_BUCKETS];
} shard_histogram;

static shard_histogram shards[SHARDS][VRANGE_KINDS][VRANGE_LATENCIES];
static _Atomic unsigned threads_seen;
static _Thread_local unsigned shard_of_thread; /* from 1; 0: not given yet */

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

static bool is_latency(int kind, int latency) {
    return kind >= 0 && kind < VRANGE_KINDS && latency >= 0 && latency < VRANGE_LATENCIES;
}

void vrange_latency_record(int kind, int latency, uint64_t nanoseconds) {
    if (!is_latency(kind, latency)) return;
    if (!shard_of_thread) shard_of_thread = 1 + atomic_fetch_add(&threads_seen, 1) % SHARDS;
    shard_histogram *histogram = &shards[shard_of_thread - 1][kind][latency];
    tally(&histogram->sum_ns, nanoseconds);
    tally(&histogram->buckets[bucket_of(nanoseconds)], 1);
}

void vrange_latency_read(int kind, int latency, vrange_histogram *out) {
    memset(out, 0, sizeof *out);
    if (!is_latency(kind, latency)) return;
    for (int shard = 0; shard < SHARDS; shard++) {
        shard_histogram *histogram = &shards[shard][kind][latency];
        out->sum_ns += histogram->sum_ns;
        for (size_t bucket = 0; bucket < VRANGE_BUCKETS; bucket++)
            out->buckets[bucket] += histogram->buckets[bucket];
    }
    /* From the buckets, so that the count always is their sum. */
    for (size_t bucket = 0; bucket < VRANGE_BUCKETS; bucket++) out->count += out->buckets[bucket];
}
