/* The index: from keys to entries.
 *
 * Entries are records of 64 bytes, a cache line, in chunks that never move. A bucket has the number of its
 * first entry, and each entry has the number of the next one. The table grows by linear hashing (Litwin
 * 1980): each added key splits one bucket. So no key pays for a rehash of all keys, and there is never a
 * second table beside the first.
 *
 * Comparing keys may run Python code that changes the index. As in CPython's dict, a search then starts
 * again, but only if its current entry was removed or moved to another bucket. Entries are added at the end
 * of their bucket, so the search still reaches an entry that was added meanwhile. */
#include "python/cache/index.h"

#include <stdlib.h>
#include <string.h>

#include "python/cache/ghosts.h"
#include "python/cache/key_weight.h"

bool hash_key(PyObject *key, key_hash *hash) {
    const Py_hash_t whole = PyObject_Hash(key);
    uint64_t h = (uint64_t)whole;
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u; /* ints hash to themselves, so multiples would collide */
    *hash = (key_hash)(h >> 32);
    return whole != -1;
}

static uint32_t bucket_of(const cache_index *index, key_hash hash) {
    const uint32_t wide = hash & (index->low_mask * 2 + 1);
    return wide < index->bucket_count ? wide : hash & index->low_mask;
}

static entry_no *bucket_at(const cache_index *index, uint32_t bucket) {
    return (entry_no *)index->buckets[bucket / CHUNK] + bucket % CHUNK;
}

/* Allocates the chunk of `bytes` at this place of the directory, unless it is there. */
static bool chunk_ready(void ***directory, uint32_t *room, uint32_t place, size_t bytes) {
    if (place >= *room) {
        uint32_t larger = *room ? *room * 2 : 8;
        while (larger <= place) larger *= 2; /* of deadlines, the deepest of a recursion comes first */
        void **grown = realloc(*directory, larger * sizeof *grown);
        if (!grown) return false;
        memset(grown + *room, 0, (larger - *room) * sizeof *grown);
        *directory = grown;
        *room = larger;
    }
    if (!(*directory)[place]) (*directory)[place] = calloc(1, bytes);
    return (*directory)[place] != NULL;
}

/* ---- finding --------------------------------------------------------------------------------- */

entry_no index_find(cache_index *index, PyObject *key, key_hash hash) {
again:
    if (!index->entries) return 0;
    const uint32_t bucket = bucket_of(index, hash);
    entry_no number = *bucket_at(index, bucket);
    while (number) {
        entry *e = entry_at(index, number);
        if (e->key == key) return number;
        if (e->hash == hash) {
            PyObject *other = Py_NewRef(e->key);
            const uint32_t serial = e->serial, version = index->version;
            const int same = PyObject_RichCompareBool(other, key, Py_EQ);
            Py_DECREF(other);
            if (same < 0) return FIND_FAILED;
            if (index->version != version) {
                /* The index may also have been cleared: the chunks are gone, or numbers are in use again. */
                if (number >= index->records || !index->chunks) goto again;
                e = entry_at(index, number);
                if (e->state != RECORD_LISTED || e->serial != serial ||
                    bucket_of(index, hash) != bucket)
                    goto again;
            }
            if (same) return number;
        }
        number = e->next;
    }
    return 0;
}

/* ---- its size -------------------------------------------------------------------------------- */

/* An entry, its bucket, its slot's owner, and its ghost after it left. */
#define RECORD_BYTES ((Py_ssize_t)(sizeof(entry) + 2 * sizeof(entry_no) + sizeof(ghost)))

#define GHOSTS_SHARE 8 /* of the bound for all caches: ghosts that their entries don't pay for */

static struct {
    Py_ssize_t bytes, bytes_most, caches; /* of all caches without max_entries */
    Py_ssize_t given_most;                /* of one cache with max_entries */
} all = {.bytes_most = PY_SSIZE_T_MAX, .given_most = PY_SSIZE_T_MAX};

static void count_bytes(cache_index *index, Py_ssize_t bytes) {
    const bool had_some = index->bytes > 0;
    index->bytes += bytes;
    if (!index->shares_bound) return;
    all.caches += (index->bytes > 0) - had_some;
    all.bytes += bytes;
}

bool index_is_too_large(const cache_index *index) {
    if (!index->shares_bound) return index->bytes > all.given_most;
    return all.bytes > all.bytes_most &&
           index->bytes > all.bytes_most / (all.caches ? all.caches : 1);
}

void index_forget(cache_index *index) {
    if (index->bytes) count_bytes(index, -index->bytes);
    *index = (cache_index){.version = index->version + 1,
                           .serials = index->serials,
                           .stamps = index->stamps,
                           .shares_bound = index->shares_bound};
}

PyObject *index_set_bounds(PyObject *module, PyObject *args) {
    (void)module;
    if (!PyArg_ParseTuple(args, "nn", &all.bytes_most, &all.given_most)) return NULL;
    ghosts_set_most((size_t)all.bytes_most / GHOSTS_SHARE);
    Py_RETURN_NONE;
}

/* Of a key with fields, which may change, the weight is stored: the same bytes are subtracted as were added. */
static uint32_t *noted_weight(const cache_index *index, entry_no number) {
    const uint32_t chunk = number / CHUNK;
    const bool is_there = chunk < index->weight_room && index->weights[chunk];
    return is_there ? (uint32_t *)index->weights[chunk] + number % CHUNK : NULL;
}

static Py_ssize_t weigh_key(cache_index *index, entry_no number, PyObject *key) {
    bool has_fields;
    const Py_ssize_t weight = key_weight_with_fields(key, &has_fields);
    if (!has_fields || weight > UINT32_MAX) return has_fields ? key_weight(key) : weight;
    if (!chunk_ready(&index->weights, &index->weight_room, number / CHUNK, CHUNK * sizeof(uint32_t)))
        return key_weight(key);
    *noted_weight(index, number) = (uint32_t)weight;
    return weight;
}

static Py_ssize_t weight_again(cache_index *index, entry_no number, PyObject *key) {
    uint32_t *noted = noted_weight(index, number);
    if (!noted || !*noted) return key_weight(key);
    const uint32_t weight = *noted;
    *noted = 0;
    return weight;
}

/* ---- adding ---------------------------------------------------------------------------------- */

/* Moves the entries of one bucket that now belong to the new last bucket, and keeps their order. */
static void split_one(cache_index *index) {
    const uint32_t from = index->bucket_count - index->low_mask - 1, to = index->bucket_count;
    index->bucket_count++;
    entry_no *kept = bucket_at(index, from), *moved = bucket_at(index, to), number = *kept;
    while (number) {
        entry *e = entry_at(index, number);
        const entry_no next = e->next;
        entry_no **end = bucket_of(index, e->hash) == to ? &moved : &kept;
        **end = number;
        *end = &e->next;
        number = next;
    }
    *kept = *moved = 0;
    if (index->bucket_count == index->low_mask * 2 + 2) index->low_mask = index->low_mask * 2 + 1;
}

/* Makes room for one more key: a record, and two buckets for every three keys. */
static bool has_room(cache_index *index) {
    if (!index->bucket_count) {
        if (!chunk_ready(&index->buckets, &index->bucket_room, 0, CHUNK * sizeof(entry_no)))
            return false;
        index->bucket_count = 1;
        index->low_mask = 0;
    }
    if (!index->records) index->records = 1; /* 0 is none */
    if (index->entries >= index->bucket_count / 2 * 3 && index->bucket_count < 1u << 30 &&
        chunk_ready(&index->buckets, &index->bucket_room, index->bucket_count / CHUNK,
                    CHUNK * sizeof(entry_no)))
        split_one(index);
    if (index->free_first) return true;
    if (index->records >= 1u << 30) return false;
    return chunk_ready(&index->chunks, &index->chunk_room, index->records / CHUNK, sizeof(entry_chunk));
}

entry_no index_add(cache_index *index, PyObject *key, key_hash hash) {
    if (!has_room(index)) return 0;
    entry_no number = index->free_first;
    if (number) index->free_first = entry_at(index, number)->next;
    else number = index->records++;
    *entry_at(index, number) = (entry){.key = Py_NewRef(key),
                                       .hash = hash,
                                       .serial = ++index->serials,
                                       .stamp = ++index->stamps,
                                       .state = RECORD_LISTED};
    entry_refers(index, number, key);
    entry_no *end = bucket_at(index, bucket_of(index, hash));
    while (*end) end = &entry_at(index, *end)->next;
    *end = number;
    index->entries++;
    index->version++;
    count_bytes(index, RECORD_BYTES + weigh_key(index, number, key));
    return number;
}

/* ---- removing -------------------------------------------------------------------------------- */

void index_bury(cache_index *index, entry_no number) {
    entry *e = entry_at(index, number);
    entry_no *link = bucket_at(index, bucket_of(index, e->hash));
    while (*link != number) link = &entry_at(index, *link)->next;
    *link = e->next;
    index->entries--;
    index->version++;
    count_bytes(index, -(RECORD_BYTES + weight_again(index, number, e->key)));
    e->state = RECORD_LIMBO;
    e->stamp = ++index->stamps;
    e->next = index->limbo;
    index->limbo = number;
}

static void drop_references(entry *e, PyObject **key, PyObject **value, PyObject **form) {
    *key = e->key;
    *value = e->value;
    *form = e->form;
    *e = (entry){.state = RECORD_FREE};
}

void index_drain(cache_index *index) {
    while (index->limbo) {
        PyObject *key, *value, *form;
        const entry_no number = index->limbo;
        entry *e = entry_at(index, number);
        index->limbo = e->next;
        drop_references(e, &key, &value, &form);
        e->next = index->free_first;
        index->free_first = number;
        Py_XDECREF(key);
        Py_XDECREF(value);
        Py_XDECREF(form);
    }
}

bool index_takes_deadline(cache_index *index, entry_no number) {
    return chunk_ready(&index->deadlines, &index->deadline_room, number / CHUNK, CHUNK * sizeof(uint64_t));
}

void index_free(cache_index *index) {
    for (uint32_t i = 0; i < index->deadline_room; i++) free(index->deadlines[i]);
    free(index->deadlines);
    for (uint32_t i = 0; i < index->weight_room; i++) free(index->weights[i]);
    free(index->weights);
    for (uint32_t i = 0; i < index->chunk_room; i++) free(index->chunks[i]);
    for (uint32_t i = 0; i < index->bucket_room; i++) free(index->buckets[i]);
    free(index->chunks);
    free(index->buckets);
    *index = (cache_index){0};
}

void index_free_chunk(cache_index *index, uint32_t chunk) {
    free(index->chunks[chunk]);
    index->chunks[chunk] = NULL;
    if (chunk < index->deadline_room) {
        free(index->deadlines[chunk]);
        index->deadlines[chunk] = NULL;
    }
    if (chunk < index->weight_room) {
        free(index->weights[chunk]);
        index->weights[chunk] = NULL;
    }
}

static int visit_entry(const entry *e, visitproc visit, void *arg) {
    Py_VISIT(e->key);
    Py_VISIT(e->value);
    Py_VISIT(e->form);
    return 0;
}

int index_visit(const cache_index *index, visitproc visit, void *arg) {
    for (uint32_t i = 0; i < index->chunk_room && index->chunks[i]; i++) {
        entry_chunk *chunk = index->chunks[i];
        for (uint32_t place = 0; place < CHUNK; place++) {
            uint64_t *word = &chunk->collected[place / 64];
            const uint64_t bits = *word >> place % 64;
            if (!bits) {
                place |= 63; /* none in the rest of the word */
                continue;
            }
            place += (uint32_t)__builtin_ctzll(bits);
            const entry *e = &chunk->entries[place];
            if (!is_collected(e->key) && !is_collected(e->value) && !is_collected(e->form)) {
                *word &= ~(1ull << place % 64);
                continue;
            }
            const int result = visit_entry(e, visit, arg);
            if (result) return result;
        }
    }
    return 0;
}
