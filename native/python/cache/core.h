/* The core of a cache: its state, and the rule that guards it.
 *
 * One native object owns everything a cache knows: the index from keys to entries, the slabs that hold small
 * values, the hot front, the ghosts of keys whose values are gone, and the flights that compute keys. Python
 * owns the codec for rare types, all waiting, and the public classes.
 *
 * Which rule guards what
 * ----------------------
 * Every field of `cache_core`, and everything reachable from it, is guarded by the GIL, by one rule: a
 * change of state is one stretch of C that runs no Python code. Python code may run wherever an object is
 * compared, hashed, called, allocated by the collector's allocator, or loses a reference. So a change first
 * puts the objects that it removes into limbo (index.h), and limbo_drain drops their references once the
 * state is whole again. A signal handler that raises, a finalizer that calls the same cache, and another
 * thread therefore only ever see whole states, and no lock is needed.
 *
 * After Python code ran, everything read before it may be out of date. An entry still has the value that was
 * read if its `stamp` is the same. The index has the same keys if its `version` is the same.
 *
 * A free-threaded build needs no second design: a PyMutex of the core, locked by the entry points (cache.c,
 * inspect.c, call.c, compute.c, compute_async.c) and unlocked around what may run Python. Those places are
 * known: each such function says so.
 *
 * Functions whose comment says "may run Python" must not be called from within such a stretch. */
#ifndef VRANGE_CACHE_CORE_H
#define VRANGE_CACHE_CORE_H

#include "python/cache/expiry.h"
#include "python/cache/ghosts.h"
#include "python/cache/index.h"
#include "python/cache/miniature.h"
#include "python/cache/slabs.h"
#include "vrange.h"

#define LEAVING_MOST 16

typedef struct cache_core cache_core;

struct cache_core {
    PyObject_HEAD
    cache_core *previous, *following; /* in the list of all cores of the process */
    PyObject *owner;             /* keeps the account open */
    PyObject *name;              /* str */
    PyObject *open_arena;        /* called when the first value is stored: calls use_arena */
    PyObject *encode;            /* called with a value that is not natively coded: returns a Form */
    PyObject *as_answered;       /* called with a value that is not stored: returns what the caller gets */
    PyObject *wait;              /* called if another caller computes the key */
    PyObject *weigh;             /* called with a value, its form and a bound: its bytes as an object */
    PyObject *give_up;           /* called with key and error if a value can't be decoded */
    PyObject *refresh;           /* called with a hit on a stale value (refresh.h); or NULL */
    PyObject *on_evict;          /* called with key and cause of what the cache removed (listener.h); or NULL */
    PyObject *get_led, *set_led; /* of the context variable that has the innermost flight */
    vrange_account *account;
    vrange_arena *arena;         /* NULL until the first value is stored, and once closed */
    bool closed;
    bool copies; /* each caller gets a writable value of its own */
    bool is_heir; /* in the child of a fork: the listener must not be called for what stayed in the parent */

    cache_index index;
    slab_table slabs;
    ghosts ghosts;
    miniature *miniature;  /* simulates requests once a value was lost (pace.h); NULL until then */
    mini_aging aging;      /* as it chose, of a cache that ages alone (pace_aging) */
    uint32_t salt;         /* makes the tags of equal keys of different caches differ there */
    bool ages_alone;       /* its values compete with each other only */
    deadlines deadlines;
    uint64_t ttl_ns;       /* 0: values never expire */
    uint64_t stale_ns;     /* how long a value is stale before its deadline: fresh for the ttl, then stale */
    uint64_t last_cost_ns; /* the assumed cost of a new slab's values */

    uint64_t leaving[LEAVING_MOST]; /* large ranges to be freed once the state is whole (limbo.c) */
    uint32_t leaving_count;
    struct grave *graves; /* cleared content that is still to be given back (clear.c) */

    struct note_block *untold, *untold_last; /* what the listener is to be called for (listener.c) */
    size_t untold_count;

    struct flight *flights; /* computations under way (flight.h) */
    unsigned flight_count;  /* entries without a value */

    entry_no oldest, newest; /* hot (hot_front.c) */
    Py_ssize_t hot_bytes, hot_bound, hot_limit; /* limit: bound times the share that pressure leaves */
    Py_ssize_t object_bytes; /* the part of hot_bytes that lies outside ranges */
    Py_ssize_t copied_bytes; /* the part of hot_bytes that another process has, too */
    bool hot_is_automatic, front_is_full;
    unsigned contests;
    uint32_t draw;

    Py_ssize_t bytes, bytes_most; /* of ranges, in pages; of the largest value that could ever fit */
    Py_ssize_t max_bytes;         /* of ranges */
    Py_ssize_t max_entries;
    entry_no hand; /* evict.c */
    entry_no newest_stored; /* and its stamp */
    uint32_t newest_stamp;
    unsigned long long hand_steps;
};

/* Raises ValueError if the cache is closed: false. */
bool core_is_open(const cache_core *self);

/* Raises that error, and returns -1. A cache loses its arena only by being closed. */
int core_raise_closed(const cache_core *self);

/* Made with max_entries=0: each request computes. */
static inline bool core_keeps_nothing(const cache_core *self) { return self->max_entries == 0; }

/* The range in which the entry's value lies; 0: in none. */
uint64_t core_range_of(const cache_core *self, const entry *e);

/* In the child of a fork: whether the value is with another process, which this one was forked from. */
bool core_is_away(const cache_core *self, const entry *e);

/* Lets other threads have the GIL for a moment, between the steps of what takes long. */
void core_let_others_run(void);

/* The list of all cores of the process. */
void core_join(cache_core *self);
void core_leave(cache_core *self);
cache_core *cores_first(void);

#endif
