/* The core of a cache: what the files in this room share.
 *
 * One native object owns everything a cache knows: the index from keys to entries, the slabs that small
 * values lie in, the hot front, what is remembered of keys whose values are gone, and which keys are
 * being computed. Python owns the codec for rare types, all waiting, and the public classes.
 *
 * Which rule guards what
 * ----------------------
 * Every field of `cache_core`, and everything reachable from it, is guarded by the GIL, by one rule: a
 * change of state is one stretch of C that runs no Python code. Python code may run wherever an object is
 * compared, hashed, called, allocated by the collector's allocator, or loses a reference. So what a change
 * lets go of is first put into limbo (index.c), and its references are dropped by core_drain once the
 * state is whole again. A signal handler that raises, a finalizer that calls the same cache, and another
 * thread therefore only ever see whole states, and no lock is needed.
 *
 * After Python code ran, everything read before it may be out of date. An entry is the one that was read
 * if its `stamp` is the same, the index has the same keys if `version` is the same.
 *
 * A free-threaded build needs no second design: a PyMutex of the core, locked by the entry points (cache.c,
 * inspect.c, call.c, compute.c, compute_async.c) and given up around what may run Python. Those places are
 * known: each such function says so.
 *
 * Functions whose comment says "may run Python" must not be called from within such a stretch. */
#ifndef VRANGE_CACHE_CORE_H
#define VRANGE_CACHE_CORE_H

#include "python/hit.h"

#include <stdlib.h>
#include <string.h>

/* ---- entries (index.c) ------------------------------------------------------------------------ */

typedef uint32_t entry_no; /* 0: none */

/* Where a value lies: a range's handle, a slot of a slab, or one of these. */
#define PLACE_NOWHERE 0ull        /* lost; the hot front may still hold it */
#define PLACE_FLIGHT (1ull << 62) /* being computed: `form` is the flight */
#define PLACE_SLOT (1ull << 63)   /* | slab number << SLOT_BITS | slot */
#define SLOT_BITS 12

typedef uint32_t key_hash; /* of a key's hash, mixed: half of it tells keys apart, and finds their bucket */

typedef struct {
    PyObject *key;
    uint64_t place;
    PyObject *value;     /* held strongly: the value is hot */
    PyObject *form;      /* makes the value of its bytes; NULL: natively coded (codec.c) */
    key_hash hash;
    entry_no next;       /* in its bucket, in limbo, or among the free records */
    entry_no older, newer; /* in the hot front */
    uint32_t serial;     /* when the key came: the order of iteration */
    uint32_t stamp;      /* another one for each value */
    uint32_t weight;     /* bytes of the value as a hot one; 0: not known yet */
    uint16_t tail;       /* bytes at the end of a range that are not the value's */
    uint8_t cost;        /* of computing it again, four steps an octave */
    uint8_t state : 2;
    uint8_t credit : 2;  /* how many turns of the hand it survives (evict.c) */
    uint8_t expires : 1; /* at a time that stands apart: most caches have no ttl */
    uint8_t refers : 1;  /* the value refers to its range's memory */
    uint8_t collected : 1; /* the key may be part of a cycle */
    uint8_t is_text : 1; /* a natively coded value with a range of its own is a str, else bytes */
} entry;

_Static_assert(sizeof(entry) == 64, "a cache line");

#define CREDIT_MOST 3
#define LEAVING_MOST 16
#define BURIED_AT_ONCE 2000 /* cleared entries that whoever clears gives back himself */

enum { RECORD_FREE, RECORD_LISTED, RECORD_LIMBO };

#define CHUNK 1024u

typedef struct {
    void **chunks;  /* of CHUNK records */
    void **buckets; /* chunks of CHUNK first entries */
    void **deadlines; /* of CHUNK records: when they expire, by the monotonic clock in ns */
    uint32_t records, bucket_count, low_mask; /* records handed out ever; linear hashing */
    uint32_t entries;     /* listed, whether they have a value or are being computed */
    uint32_t chunk_room, bucket_room, deadline_room;
    entry_no free_first;
} cache_index;

/* ---- slabs (slabs.c) -------------------------------------------------------------------------- */

#define SLAB_OWNER 0x80000000u /* what a range's owner is: | a slab's number, or an entry's */
#define SLAB_BYTES (64u << 10)
#define SLAB_CLASSES 64
/* Half of the smallest page, and what a natively coded str or bytes begins with. A larger value has a range
 * of its own. */
#define SMALL_BYTES_MOST (2048 + 3)

typedef struct slab {
    uint64_t handle;
    char *memory;
    uint32_t number, slot_bytes, slots;
    uint32_t used, fresh;        /* fresh: slots from here on were never used */
    uint32_t free_first;         /* among the owners; NO_SLOT: none */
    uint32_t size_class;
    struct slab *previous, *next; /* with a free slot, of its size class */
    entry_no owners[];            /* or the next free slot */
} slab;

/* ---- ghosts (ghosts.c), expiry (expiry.c) ----------------------------------------------------- */

typedef struct {
    uint32_t tag, uses, epoch;
    uint8_t state;
} ghost;

typedef struct {
    ghost *places;
    uint32_t room, used;
} ghost_table;

typedef struct {
    uint64_t at_ns;
    entry_no number;
    uint32_t stamp;
} deadline;

typedef struct cache_core cache_core;
typedef struct flight flight; /* one computation under way (flight.h) */

/* ---- the core --------------------------------------------------------------------------------- */

struct cache_core {
    PyObject_HEAD
    cache_core *previous, *following; /* all cores of the process, for the hot front's bounds */
    PyObject *owner;     /* keeps the account open */
    PyObject *name;      /* str */
    PyObject *open_arena; /* called for the arena's address, when the first value is stored */
    PyObject *encode;    /* called with a value that is not natively coded: a Form */
    PyObject *wait;      /* called where another one computes the key */
    PyObject *weigh;     /* called with a value, its form and a bound: its bytes as an object */
    PyObject *give_up;   /* called with key and error where a value can't be decoded */
    PyObject *get_led, *set_led; /* of the context variable that has the innermost flight */
    vrange_account *account;
    vrange_arena *arena; /* NULL until the first value, and once closed */
    bool closed;

    cache_index index;
    entry_no limbo;
    struct grave *graves; /* what was cleared, its entries still to be dropped (clear.c) */
    uint64_t leaving[LEAVING_MOST]; /* large ranges to be freed once the state is whole */
    uint32_t leaving_count;
    uint32_t version, serials, stamps;

    slab **slabs;
    uint32_t slab_room, slab_free; /* slab_free: a number to use again, + 1 */
    slab *open[SLAB_CLASSES];
    uint64_t last_cost_ns;         /* what a new slab's values are taken to cost */

    ghost_table young, old;

    deadline *deadlines;
    uint32_t deadline_count, deadline_room;
    uint64_t ttl_ns; /* 0: values never expire */

    flight *flights;
    unsigned flight_count; /* entries without a value */

    entry_no oldest, newest; /* hot */
    Py_ssize_t hot_bytes, hot_bound, hot_limit; /* limit: bound times the share that pressure leaves */
    bool hot_is_automatic, front_is_full, is_joined;
    unsigned contests;
    uint32_t draw;

    Py_ssize_t bytes, bytes_most; /* of ranges, in pages; of the largest one that could ever fit */
    Py_ssize_t max_bytes;         /* of ranges */
    Py_ssize_t book_bytes;        /* of the index and its keys, roughly */
    Py_ssize_t max_entries;
    bool books_are_automatic;     /* bounded together with those of other caches */
    entry_no hand;
    unsigned long long hand_steps;
};

/* Raises ValueError if the cache is closed: false. */
bool core_is_open(const cache_core *self);

/* ---- index.c ---------------------------------------------------------------------------------- */

#define FIND_FAILED UINT32_MAX

/* False with an error set. May run Python. */
bool hash_key(PyObject *key, key_hash *hash);

static inline entry *entry_at(const cache_index *index, entry_no number) {
    return (entry *)index->chunks[number / CHUNK] + number % CHUNK;
}

static inline uint64_t *deadline_at(const cache_index *index, entry_no number) {
    return (uint64_t *)index->deadlines[number / CHUNK] + number % CHUNK;
}

/* Whether the record may have a deadline; false without memory. */
bool index_takes_deadline(cache_index *index, entry_no number);

/* The key's entry; 0: none; FIND_FAILED with an error set. May run Python. Until Python runs again, or the
 * version changes, a key that was not found may be added. */
entry_no index_find(cache_core *self, PyObject *key, key_hash hash);

/* Adds a key that has no entry. 0 without memory, without an error set. */
entry_no index_add(cache_core *self, PyObject *key, key_hash hash);

/* The value's references and place are the caller's already; the record goes to limbo. */
void index_bury(cache_core *self, entry_no number);

void index_free(cache_index *index);

/* What a key takes beside its entry, roughly: the same each time it is asked. */
Py_ssize_t key_weight(PyObject *key);

/* Whether the caches of the process have more bookkeeping than they may, and this one its share. */
bool index_is_too_large(const cache_core *self);
/* Starts anew; the content is the caller's by now. */
void index_forget(cache_core *self);
PyObject *index_set_bounds(PyObject *module, PyObject *args);

/* Drops what is in limbo. May run Python. Keeps an error that is set. */
void core_drain(cache_core *self);

/* ---- codec.c ---------------------------------------------------------------------------------- */

/* A value's bytes, natively coded or as Python's codec gives them. */
typedef struct {
    PyObject *form;    /* owned: Viewer or callable; NULL: natively coded */
    PyObject *holder;  /* owned: keeps the parts, or NULL */
    Py_buffer *views;  /* of the holder's parts, `view_count` of them */
    Py_ssize_t view_count;
    vrange_part *parts; /* &one, or allocated */
    size_t part_count;
    vrange_part one;
    size_t bytes;
    PyObject *write;    /* borrowed of the holder: writes the bytes instead; or NULL */
    bool is_small;      /* `small` has its bytes */
    bool refers;        /* the decoded value refers to the range's memory */
    bool is_view;       /* and is what the caller is to have, too */
    bool is_text;       /* of a natively coded value with a range of its own: a str, else bytes */
    char small[SMALL_BYTES_MOST]; /* where a small value is put together */
} coded;

/* 0, or -1 with an error set. May run Python. */
int code_value(cache_core *self, PyObject *value, coded *out);
void coded_release(coded *c);
/* NULL with an error set. Both may run Python. */
PyObject *decode_small(PyObject *form, const char *data, size_t bytes);
PyObject *decode_range(PyObject *form, bool is_text, PyObject *lease);
PyObject *codec_write(PyObject *module, PyObject *args);
int form_add_type(PyObject *module);

/* ---- slabs.c ---------------------------------------------------------------------------------- */

#define NO_SLOT UINT32_MAX
#define SLOT_HEAD 4 /* the length, before each value */

slab *slabs_with_room(const cache_core *self, size_t bytes);
/* Takes on a fresh range of SLAB_BYTES. NULL without memory. */
slab *slabs_add(cache_core *self, uint64_t handle, size_t bytes);
/* Writes a value into a free slot. False: the slab was purged meanwhile. */
bool slabs_write(cache_core *self, slab *to, const void *data, size_t bytes, entry_no owner,
                 uint64_t *place);
/* Copies a value to `buffer`; its length, or -1 where the slab is lost. */
Py_ssize_t slabs_read(const cache_core *self, uint64_t place, char *buffer);
slab *slab_of(const cache_core *self, uint64_t place);
slab *slab_numbered(const cache_core *self, uint32_t number); /* NULL: there is none */
/* Frees the slot. Returns the handle of a range to be freed, or 0. */
uint64_t slabs_free_slot(cache_core *self, uint64_t place);
/* The entry in a slot; 0: none. */
entry_no slab_owner(const slab *s, uint32_t slot);
/* Forgets a slab whose slots nobody refers to any more. */
void slabs_remove(cache_core *self, slab *gone);

/* ---- ghosts.c, expiry.c ----------------------------------------------------------------------- */

void ghosts_remember(cache_core *self, key_hash hash, uint32_t uses, bool purged);


uint32_t ghosts_uses(const cache_core *self, key_hash hash);
bool ghosts_was_purged(const cache_core *self, key_hash hash);
void ghosts_forget(cache_core *self, key_hash hash);
void ghosts_clear(cache_core *self);

/* Without memory for it the entry is found expired when it is asked for, and only then. */
void expiry_note(cache_core *self, entry_no number);
/* An entry whose time is over; 0: none. */
entry_no expiry_next(cache_core *self, uint64_t now_ns);

/* ---- hot_front.c ------------------------------------------------------------------------------ */

/* Offers a value that was read to the front. May run Python. -1 with an error set. */
int hot_offer(cache_core *self, entry_no number, uint32_t stamp, PyObject *value);
/* Takes the value off the front: a reference for the caller to drop, or NULL. */
PyObject *hot_release(cache_core *self, entry_no number);
void hot_count(cache_core *self, entry *e);
/* Lets one go, and its key where its range is lost. May run Python. */
void hot_let_go(cache_core *self, entry_no number);
/* Lets all go. May run Python. */
void hot_clear(cache_core *self);
void hot_set_bound(cache_core *self, Py_ssize_t bound); /* ignored by an automatic one */
void hot_join(cache_core *self);
void hot_leave(cache_core *self);
PyObject *hot_use_share(PyObject *module, PyObject *share);
cache_core *cores_first(void); /* of all in the process */
PyObject *hot_set_automatic(PyObject *module, PyObject *bytes);

/* ---- lookup.c --------------------------------------------------------------------------------- */

enum { LOOKUP_FAILED = -1, LOOKUP_FOUND, LOOKUP_ABSENT, LOOKUP_UNDER_WAY };

typedef struct {
    PyObject *value;  /* found: a new reference */
    entry_no number;  /* under way */
    int outcome;      /* absent: what the request counts as */
    uint32_t version; /* absent: of the index that did not have it */
} looked_up;

/* Counts a hit; the caller counts what is absent. May run Python. */
int core_look_up(cache_core *self, PyObject *key, key_hash hash, looked_up *out);
bool entry_is_expired(const cache_core *self, entry_no number);

/* ---- store.c ---------------------------------------------------------------------------------- */

/* Stores under a key: replaces what is there, and calls off its computation. Where there is no room, the
 * key is as if purged. expires_ns 0: as the cache's ttl says. -1 with an error set. May run Python. */
int store_set(cache_core *self, PyObject *key, key_hash hash, PyObject *value, uint64_t expires_ns,
              uint64_t cost_ns);
/* Stores what a flight computed, if it was not called off. Returns what the caller is to have, or NULL
 * with an error set. May run Python. */
PyObject *store_computed(flight *of, PyObject *value, uint64_t cost_ns);

/* ---- evict.c ---------------------------------------------------------------------------------- */

/* The entry goes: to limbo, and its place is given back. */
void evict_entry(cache_core *self, entry_no number);
/* Its range is gone; with a hot value it stays. `uses` as of its range. */
void evict_lost(cache_core *self, entry_no number, uint32_t uses, bool purged);
void evict_lost_place(cache_core *self, entry_no number, bool purged);
/* Gives a place back, and its bytes; returns the uses of a range. */
uint32_t evict_place(cache_core *self, uint64_t place);
/* Some of what was found lost, and what expired; false: there was none. */
bool evict_sweep(cache_core *self, bool purged);
void evict_sweep_all(cache_core *self, bool purged);
void evict_lost_slab(cache_core *self, slab *gone);
void evict_free_leaving(cache_core *self);
/* Keeps entries and bytes below their bounds, but for the entry just stored. May run Python. */
void evict_to_bounds(cache_core *self, entry_no kept, uint32_t stamp);
/* Lets go so that so many bytes may fit. False: nothing is left that could go. May run Python. */
bool evict_make_room(cache_core *self, size_t bytes);

/* ---- clear.c ---------------------------------------------------------------------------------- */

/* All entries are gone. May run Python. */
void evict_all(cache_core *self);
/* Drops up to `most` entries of cleared indexes: true while some are left. May run Python. */
bool evict_bury_some(cache_core *self, uint32_t most);

int visit_entries(const cache_index *index, visitproc visit, void *arg);
int visit_graves(const cache_core *self, visitproc visit, void *arg);

Py_ssize_t pages_bytes(size_t bytes);

/* ---- cache.c, inspect.c, call.c ---------------------------------------------------------------- */

/* The key's entry if it has a value; 0: none, FIND_FAILED with an error set. May run Python. */
entry_no core_find(cache_core *self, PyObject *key);
bool is_core(PyObject *object);
/* The handle of the range that an entry's value lies in; 0: none. */
uint64_t core_range_of(const cache_core *self, const entry *e);
/* Methods of CacheCore. */
PyObject *core_count(PyObject *object, PyObject *unused);
PyObject *core_entries(PyObject *object, void *unused);
PyObject *core_keys(PyObject *object, PyObject *unused);
PyObject *core_hot_keys(PyObject *object, PyObject *unused);
PyObject *core_handles(PyObject *object, PyObject *keys);
PyObject *core_cool(PyObject *object, PyObject *keys);
PyObject *core_flight(PyObject *object, PyObject *key);
PyObject *core_uses(PyObject *object, PyObject *key);
PyObject *core_check(PyObject *object, PyObject *unused);
int core_add_type(PyObject *module);
int call_add_type(PyObject *module);

#endif
