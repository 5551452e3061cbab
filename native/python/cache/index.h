/* The index: from keys to entries, and the entries that wait for their references to be dropped. */
#ifndef VRANGE_CACHE_INDEX_H
#define VRANGE_CACHE_INDEX_H

#include "python/support.h"

#include <stdbool.h>

#include "python/cache/place.h"

typedef uint32_t key_hash; /* the mixed hash of a key: tells keys apart, and its low bits select a bucket */

#define NEVER_HOT UINT32_MAX /* as a weight: each caller gets an object of its own */

typedef struct {
    PyObject *key;
    uint64_t place;
    PyObject *value;       /* held strongly: the value is hot */
    PyObject *form;        /* decodes the value; NULL: natively coded (small_codec.c) */
    key_hash hash;
    entry_no next;         /* in its bucket, in limbo, or among the free records */
    entry_no older, newer; /* in the hot front */
    uint32_t serial;       /* when the key was added: the order of iteration */
    uint32_t stamp;        /* different for each value */
    uint32_t weight;       /* bytes of the value while it is hot; 0: not known yet; or NEVER_HOT */
    uint16_t tail;         /* bytes at the end of a range that do not belong to the value */
    uint8_t cost;          /* of computing it again, four steps an octave */
    uint8_t state : 2;
    uint8_t credit : 2;    /* how many turns of the hand it survives (evict.c) */
    uint8_t expires : 1;   /* its deadline is stored apart: most caches have no ttl */
    uint8_t refers : 1;    /* the value refers to its range's memory */
    uint8_t is_text : 1;   /* a natively coded value with a range of its own is a str, else bytes */
    uint8_t is_copy : 1;   /* the hot value is a copy of what lies in another process */
} entry;

_Static_assert(sizeof(entry) == 64, "a cache line");

#define CREDIT_MOST 3

enum {
    RECORD_FREE,
    RECORD_LISTED,
    RECORD_LIMBO,
};

#define CHUNK 1024u

/* `collected` has a bit for each entry that may refer to an object that the collector knows. Most caches
 * have few such keys and values. So a full collection, which every thread waits for, does not read every
 * entry. */
typedef struct {
    entry entries[CHUNK];
    uint64_t collected[CHUNK / 64];
} entry_chunk;

typedef struct {
    void **chunks;    /* entry_chunk */
    void **buckets;   /* chunks of CHUNK first entries */
    void **deadlines; /* for CHUNK records: when they expire, by the monotonic clock in ns */
    void **weights;   /* for CHUNK records: what keys with fields weighed, or 0 (key_weight.h) */
    uint32_t records, bucket_count, low_mask; /* records ever handed out; linear hashing */
    uint32_t entries; /* listed, whether they have a value or are being computed */
    uint32_t chunk_room, bucket_room, deadline_room, weight_room;
    entry_no free_first;
    entry_no limbo;            /* entries that left, with references still to be dropped */
    uint32_t version;          /* another one after each key that was added or left */
    uint32_t serials, stamps;
    Py_ssize_t bytes;          /* of the records and their keys, roughly */
    bool shares_bound;         /* bounded together with those of other caches */
} cache_index;

static inline entry *entry_at(const cache_index *index, entry_no number) {
    return &((entry_chunk *)index->chunks[number / CHUNK])->entries[number % CHUNK];
}

static inline bool is_collected(PyObject *object) {
    return object && PyType_GetFlags(Py_TYPE(object)) & Py_TPFLAGS_HAVE_GC;
}

/* Call it for each object that an entry refers to from now on. */
static inline void entry_refers(const cache_index *index, entry_no number, PyObject *object) {
    if (!is_collected(object)) return;
    entry_chunk *chunk = index->chunks[number / CHUNK];
    chunk->collected[number % CHUNK / 64] |= 1ull << number % 64;
}

static inline uint64_t *deadline_at(const cache_index *index, entry_no number) {
    return (uint64_t *)index->deadlines[number / CHUNK] + number % CHUNK;
}

/* Whether the entry still has the value that had this stamp. */
static inline bool entry_is_still(const cache_index *index, entry_no number, uint32_t stamp) {
    return number < index->records && entry_at(index, number)->stamp == stamp;
}

#define FIND_FAILED UINT32_MAX

/* False with an error set. May run Python. */
bool hash_key(PyObject *key, key_hash *hash);

/* The key's entry; 0: none; FIND_FAILED with an error set. May run Python. Until Python runs again, or the
 * version changes, a key that was not found may be added. */
entry_no index_find(cache_index *index, PyObject *key, key_hash hash);

/* Adds a key that has no entry. 0 without memory, without an error set. */
entry_no index_add(cache_index *index, PyObject *key, key_hash hash);

/* Makes room for a deadline of the record. False without memory. */
bool index_takes_deadline(cache_index *index, entry_no number);

/* Takes an entry out of its bucket and puts it into limbo. The caller has taken care of its place. */
void index_bury(cache_index *index, entry_no number);

/* Drops the references of the entries in limbo. May run Python. */
void index_drain(cache_index *index);

/* Starts with an empty index. The caller has moved the records elsewhere. */
void index_forget(cache_index *index);

void index_free(cache_index *index);

/* Frees the records of the last chunk of an index that is given back. */
void index_free_chunk(cache_index *index, uint32_t chunk);

int index_visit(const cache_index *index, visitproc visit, void *arg);

/* Whether the caches of the process have larger indexes than they may, and this one has more than its share. */
bool index_is_too_large(const cache_index *index);

/* set_index_bytes(together, each) */
PyObject *index_set_bounds(PyObject *module, PyObject *args);

#endif
