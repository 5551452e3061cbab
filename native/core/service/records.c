/* Publishes records and finds them: the part of vrange.h that reads and writes a shared index.
 *
 * buckets.c exchanges the words that refer to records, record_cells.c has their memory, peers/ reads large
 * values from their owners, and flights.c has the computations under way. */
#include <errno.h>
#include <string.h>

#include "base/rung.h"
#include "os/os.h"
#include "ranges/range_place.h"
#include "service/buckets.h"
#include "service/record_cells.h"
#include "service/members.h"
#include "vrange.h"

#define TRIES 16
#define USES_COUNTED 255u /* more do not matter, and each would take the cache line from other processors */

static void describe(const found_record *found, const index_place *place, vrange_shared_found *out) {
    out->kind = (int)found->record.kind;
    out->stamp = found->record.stamp;
    out->at = found->at;
    out->word = found->word;
    out->owner = found->record.owner;
    out->flight = found->record.flight;
    out->expires_ns = found->record.expires_ns;
    out->bytes = found->record.bytes;
    out->place = (vrange_shared_place){0};
    if (found->record.kind != VRANGE_RECORD_RANGE) return;
    out->bytes = place->bytes;
    out->place = place->at;
}

static void count_use(const vrange_shared *s, uint64_t word) {
    index_record *record = record_at(s, CELL_OF(word) - 1);
    const uint32_t uses = atomic_load_explicit(&record->uses, memory_order_relaxed);
    if (uses < USES_COUNTED) atomic_store_explicit(&record->uses, uses + 1, memory_order_relaxed);
}

static int deliver(const vrange_shared *s, const found_record *found, void *payload, size_t room,
                   vrange_shared_found *out) {
    index_place place = {0};
    if (found->record.kind == VRANGE_RECORD_RANGE) {
        if (found->record.bytes < sizeof place || room < sizeof place) return VRANGE_GONE;
        memcpy(&place, payload, sizeof place);
    }
    if (found->record.bytes > room) return VRANGE_GONE;
    out->payload_bytes = found->record.bytes;
    describe(found, &place, out);
    count_use(s, found->word);
    return VRANGE_OK;
}

int vrange_shared_find(const vrange_shared *s, const unsigned char *digest, void *payload, size_t room,
                       vrange_shared_found *out) {
    found_record found;
    if (!own_identity(s)) return -ESRCH;
    if (!buckets_find(s, digest, &found, payload, room)) return VRANGE_GONE;
    return deliver(s, &found, payload, room, out);
}

int vrange_shared_next(const vrange_shared *s, uint64_t *cursor, void *payload, size_t room,
                       vrange_shared_found *out) {
    const uint64_t end = ((uint64_t)s->bucket_mask + 1) * WAYS;
    for (; *cursor < end; ++*cursor) {
        found_record found;
        const uint64_t at = *cursor;
        if (at % WAYS == 0 || !CELL_OF(atomic_load(&s->words[at]))) continue;
        if (!buckets_read(s, at, &found, payload, room) || found.record.kind == VRANGE_RECORD_ERROR) continue;
        if (found.record.expires_ns && found.record.expires_ns <= os_now_ns()) continue;
        ++*cursor;
        if (deliver(s, &found, payload, room, out) == VRANGE_OK) return VRANGE_OK;
        --*cursor;
    }
    return VRANGE_GONE;
}

uint64_t vrange_shared_count(const vrange_shared *s) {
    const uint64_t end = ((uint64_t)s->bucket_mask + 1) * WAYS;
    uint64_t count = 0;
    for (uint64_t at = 0; at < end; at++) {
        found_record found;
        if (at % WAYS == 0 || !CELL_OF(atomic_load_explicit(&s->words[at], memory_order_relaxed))) continue;
        if (!buckets_read(s, at, &found, NULL, 0) || found.record.kind == VRANGE_RECORD_ERROR) continue;
        count += !found.record.expires_ns || found.record.expires_ns > os_now_ns();
    }
    return count;
}

uint64_t vrange_shared_stamp(vrange_shared *s) {
    const uint64_t identity = own_identity(s);
    pthread_mutex_lock(&s->own->lock);
    const uint64_t stamp = identity << 54 | (identity >> 32 & 0x3fffff) << 32 | ++s->own->stamps;
    pthread_mutex_unlock(&s->own->lock);
    return stamp;
}

static int replace(vrange_shared *s, const unsigned char *digest, uint32_t cell, vrange_shared_found *out) {
    int result = -ESTALE;
    for (int i = 0; result == -ESTALE && i < TRIES; i++) {
        const uint64_t changes = vrange_shared_changes(s, digest);
        result = buckets_publish(s, digest, changes, cell, &out->at, &out->word);
        if (result == 0) result = buckets_settle(s, digest, out->at, &out->word);
    }
    return result;
}

/* The caller holds own->lock: until the record is published, its cell is free. */
static int publish(vrange_shared *s, const index_record *record, const void *payload,
                   const vrange_shared_key *key, vrange_shared_found *out) {
    const uint32_t cell = record_cells_take(s, record->bytes);
    if (!cell) return own_identity(s) ? -ENOSPC : -ESRCH;
    index_record *to = record_at(s, cell - 1);
    atomic_thread_fence(memory_order_release); /* a reader of what follows finds its word changed */
    memcpy(to + 1, payload, record->bytes);
    memcpy(to, record, sizeof *record);
    out->owner = record->owner;
    out->stamp = record->stamp;
    if (key->replaces) return replace(s, record->digest, cell - 1, out);
    return buckets_publish(s, record->digest, key->changes, cell - 1, &out->at, &out->word);
}

static int put(vrange_shared *s, const vrange_shared_key *key, uint32_t kind, uint32_t flight,
               const void *payload, size_t bytes, vrange_shared_found *out) {
    if (bytes > VRANGE_PAYLOAD_MOST) return -E2BIG;
    index_record record = {.stamp = key->stamp,
                           .expires_ns = key->expires_ns,
                           .owner = own_identity(s),
                           .bucket = bucket_of(s, key->digest),
                           .bytes = (uint32_t)bytes,
                           .kind = kind,
                           .flight = flight,
                           .uses = 1};
    memcpy(record.digest, key->digest, VRANGE_DIGEST_BYTES);
    pthread_mutex_lock(&s->own->lock);
    const int result = publish(s, &record, payload, key, out);
    pthread_mutex_unlock(&s->own->lock);
    return result;
}

int vrange_shared_put(vrange_shared *s, const vrange_shared_key *key, const void *payload, size_t bytes,
                      vrange_shared_found *out) {
    return put(s, key, VRANGE_RECORD_VALUE, 0, payload, bytes, out);
}

int vrange_shared_put_error(vrange_shared *s, const vrange_shared_key *key, uint32_t flight,
                            const void *payload, size_t bytes, vrange_shared_found *out) {
    return put(s, key, VRANGE_RECORD_ERROR, flight, payload, bytes, out);
}

int vrange_shared_put_range(vrange_shared *s, const vrange_shared_key *key, uint64_t handle, size_t bytes,
                            const void *note, size_t note_bytes, vrange_shared_found *out) {
    char payload[VRANGE_PAYLOAD_MOST];
    range_place at;
    const int result = range_where(handle, &at);
    if (result != VRANGE_OK) return result;
    /* On the sentinel rung others can't tell the content of a range from what the kernel took. */
    if (vrange_rung() == VRANGE_RUNG_SENTINEL || bytes > at.bytes) return -ENOTSUP;
    if (own_identity(s)) member_note_mends(s);
    const vrange_shared_place where = {.address = (uint64_t)at.address,
                                       .word_at = (uint64_t)at.word,
                                       .word = at.generation,
                                       .handle = handle};
    const index_place place = {bytes, where};
    if (note_bytes > sizeof payload - sizeof place) return -E2BIG;
    memcpy(payload, &place, sizeof place);
    memcpy(payload + sizeof place, note, note_bytes);
    return put(s, key, VRANGE_RECORD_RANGE, 0, payload, sizeof place + note_bytes, out);
}

int vrange_shared_read(const vrange_shared *s, const vrange_shared_found *found, void *head, size_t head_bytes,
                       void *to) {
    index_member owner;
    if (found->kind != VRANGE_RECORD_RANGE || head_bytes > found->bytes) return VRANGE_PURGED;
    if (!member_read(s, found->owner, &owner)) return VRANGE_PURGED;
    peer_content content = {.from = found->place.address,
                            .head = head,
                            .head_bytes = head_bytes,
                            .to = to,
                            .bytes = found->bytes - head_bytes,
                            .word_at = found->place.word_at,
                            .accepts = range_was_there,
                            .expected = found->place.word};
    switch (peer_read(&owner.process, &content)) {
    case PEER_READ: return buckets_is_still(s, found->at, found->word) ? VRANGE_OK : VRANGE_GONE;
    case PEER_REFUSED: return content.error;
    default: return VRANGE_PURGED;
    }
}
