/* Buckets; see buckets.h.
 *
 * An invalidation of a key first counts a change, and then gives every word of the bucket another version. The
 * key's words refer to no record any more. A publisher reads a word, then checks that no change was counted
 * since its computation began, and then exchanges the word. So the publisher finds the change, or its exchange
 * fails, or the invalidation finds what was published. A publisher that was stopped between these steps, for
 * however long, publishes nothing that was invalidated meanwhile.
 *
 * A set publishes the key's value, and then invalidates everything else of the key: a computation that began
 * before the set must not store its result over the value. */
#include "service/buckets.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"
#include "service/record_cells.h"
#include "vrange.h"

#define TRIES 16

uint32_t bucket_of(const vrange_shared *s, const unsigned char *digest) {
    uint32_t bits;
    memcpy(&bits, digest, sizeof bits);
    return bits & s->bucket_mask;
}

static uint32_t tag_of(const unsigned char *digest) {
    return (uint32_t)digest[4] | (uint32_t)(digest[5] & 0xf) << 8;
}

static _Atomic uint64_t *bucket_at(const vrange_shared *s, const unsigned char *digest) {
    return &s->words[(size_t)bucket_of(s, digest) * WAYS];
}

bool buckets_is_still(const vrange_shared *s, uint64_t at, uint64_t word) {
    return at < ((uint64_t)s->bucket_mask + 1) * WAYS && at % WAYS && atomic_load(&s->words[at]) == word;
}

/* ---- reading ------------------------------------------------------------------------------------ */

/* Another process may write to the cell meanwhile. Then the word has changed, and the copy is dropped. */
static bool copy_record(const vrange_shared *s, uint64_t word, found_record *out, void *payload, size_t room) {
    const uint32_t cell = CELL_OF(word) - 1;
    if (!CELL_OF(word) || !cell_may_be_read(s, cell, sizeof(index_record))) return false;
    memcpy(&out->record, record_at(s, cell), sizeof(index_record));
    const uint32_t bytes = out->record.bytes;
    if (bytes > VRANGE_PAYLOAD_MOST || !cell_may_be_read(s, cell, sizeof(index_record) + bytes)) return false;
    if (payload) memcpy(payload, record_at(s, cell) + 1, bytes < room ? bytes : room);
    atomic_thread_fence(memory_order_acquire);
    return true;
}

bool buckets_read(const vrange_shared *s, uint64_t at, found_record *out, void *payload, size_t room) {
    for (int i = 0; i < TRIES; i++) {
        const uint64_t word = atomic_load(&s->words[at]);
        const bool is_read = copy_record(s, word, out, payload, room);
        if (atomic_load(&s->words[at]) != word) continue;
        out->at = at;
        out->word = word;
        return is_read;
    }
    return false;
}

static bool has_expired(const index_record *record) {
    return record->expires_ns && record->expires_ns <= os_now_ns();
}

bool buckets_find(const vrange_shared *s, const unsigned char *digest, found_record *out, void *payload,
                  size_t room) {
    const uint64_t first = (uint64_t)bucket_of(s, digest) * WAYS;
    const uint32_t tag = tag_of(digest);
    for (uint64_t at = first + 1; at < first + WAYS; at++) {
        const uint64_t word = atomic_load_explicit(&s->words[at], memory_order_acquire);
        if (!CELL_OF(word) || TAG_OF(word) != tag) continue;
        if (!buckets_read(s, at, out, payload, room)) continue;
        if (memcmp(out->record.digest, digest, VRANGE_DIGEST_BYTES) != 0) continue;
        if (!has_expired(&out->record)) return true;
        uint64_t expired = out->word;
        atomic_compare_exchange_strong(&s->words[at], &expired, word_after(expired, 0, 0));
    }
    return false;
}

/* ---- changing ----------------------------------------------------------------------------------- */

static bool is_of_key(const vrange_shared *s, uint64_t word, const unsigned char *digest, bool *has_value) {
    found_record found;
    if (!CELL_OF(word) || TAG_OF(word) != tag_of(digest)) return false;
    if (!copy_record(s, word, &found, NULL, 0)) return true; /* can't be read: of no use to anyone */
    *has_value = found.record.kind != VRANGE_RECORD_ERROR && !has_expired(&found.record);
    return memcmp(found.record.digest, digest, VRANGE_DIGEST_BYTES) == 0;
}

/* Gives the word another version; it refers to no record if that is the key's, or if `digest` is NULL. */
static bool change_word(const vrange_shared *s, _Atomic uint64_t *place, const unsigned char *digest) {
    uint64_t word = atomic_load(place);
    for (;;) {
        bool has_value = true;
        const bool goes = !digest ? CELL_OF(word) != 0 : is_of_key(s, word, digest, &has_value);
        /* If the copy of the record was torn, the word has changed, and so the exchange fails. */
        const uint64_t after = goes ? word_after(word, 0, 0) : word_after(word, TAG_OF(word), CELL_OF(word));
        if (atomic_compare_exchange_strong(place, &word, after)) return goes && has_value;
    }
}

uint64_t vrange_shared_changes(const vrange_shared *s, const unsigned char *digest) {
    return atomic_load(bucket_at(s, digest));
}

uint64_t vrange_shared_changes_at(const vrange_shared *s, const unsigned char *digest) {
    return (uint64_t)bucket_of(s, digest) * WAYS;
}

uint64_t vrange_shared_change(vrange_shared *s, const unsigned char *digest, int *removed) {
    _Atomic uint64_t *bucket = bucket_at(s, digest);
    const uint64_t changes = atomic_fetch_add(bucket, 1) + 1;
    *removed = 0;
    for (uint32_t way = 1; way < WAYS; way++) *removed |= change_word(s, &bucket[way], digest);
    return changes;
}

int buckets_settle(vrange_shared *s, const unsigned char *digest, uint64_t at, uint64_t *word) {
    _Atomic uint64_t *bucket = bucket_at(s, digest);
    int result = 0;
    atomic_fetch_add(bucket, 1);
    for (uint32_t way = 1; way < WAYS; way++) {
        if (&bucket[way] != &s->words[at]) {
            change_word(s, &bucket[way], digest);
            continue;
        }
        const uint64_t after = word_after(*word, TAG_OF(*word), CELL_OF(*word));
        uint64_t before = *word;
        if (atomic_compare_exchange_strong(&bucket[way], &before, after)) {
            *word = after;
        } else {
            change_word(s, &bucket[way], digest);
            result = -ESTALE;
        }
    }
    return result;
}

void vrange_shared_clear(vrange_shared *s) {
    for (size_t bucket = 0; bucket <= s->bucket_mask; bucket++) {
        _Atomic uint64_t *words = &s->words[bucket * WAYS];
        atomic_fetch_add(words, 1);
        for (uint32_t way = 1; way < WAYS; way++) change_word(s, &words[way], NULL);
    }
}

int vrange_shared_drop(vrange_shared *s, uint64_t at, uint64_t word) {
    if (!buckets_is_still(s, at, word)) return VRANGE_GONE;
    const bool is_ours = atomic_compare_exchange_strong(&s->words[at], &word, word_after(word, 0, 0));
    return is_ours ? VRANGE_OK : VRANGE_GONE;
}

/* ---- publishing --------------------------------------------------------------------------------- */

static uint32_t uses_of(const vrange_shared *s, uint64_t word) {
    const uint32_t cell = CELL_OF(word) - 1;
    if (!cell_may_be_read(s, cell, sizeof(index_record))) return 0;
    return atomic_load_explicit(&record_at(s, cell)->uses, memory_order_relaxed);
}

/* The word to exchange: the key's own, an empty one, or that of the record that was used least. */
static uint32_t choose_way(const vrange_shared *s, _Atomic uint64_t *bucket, const unsigned char *digest,
                           uint64_t *word) {
    uint32_t best = 0, fewest = UINT32_MAX;
    for (uint32_t way = 1; way < WAYS; way++) {
        bool has_value;
        const uint64_t now = atomic_load(&bucket[way]);
        if (is_of_key(s, now, digest, &has_value)) {
            *word = now;
            return way;
        }
        const uint32_t uses = CELL_OF(now) ? uses_of(s, now) : 0;
        const bool is_better = !best || (CELL_OF(*word) && (!CELL_OF(now) || uses < fewest));
        if (!is_better) continue;
        best = way;
        fewest = uses;
        *word = now;
    }
    return best;
}

int buckets_publish(vrange_shared *s, const unsigned char *digest, uint64_t changes, uint32_t cell,
                    uint64_t *at, uint64_t *word) {
    _Atomic uint64_t *bucket = bucket_at(s, digest);
    for (int i = 0; i < TRIES; i++) {
        uint64_t before = 0;
        const uint32_t way = choose_way(s, bucket, digest, &before);
        if (atomic_load(bucket) != changes) return -ESTALE;
        const uint64_t after = word_after(before, tag_of(digest), cell + 1);
        if (!atomic_compare_exchange_strong(&bucket[way], &before, after)) continue;
        *at = (uint64_t)bucket_of(s, digest) * WAYS + way;
        *word = after;
        return 0;
    }
    return -ESTALE;
}
