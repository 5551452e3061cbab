/* What the files of the extension module vrange._hit share. */
#ifndef VRANGE_HIT_H
#define VRANGE_HIT_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

#include <stdbool.h>

#include "vrange.h"

/* What a lease holds: a range, or blocks of an array. */
typedef struct lease_pin {
    void (*release)(const struct lease_pin *pin);
    uint64_t handle;
    vrange_array *array;
    size_t first_block, blocks;
    PyObject *owner; /* what keeps the memory mapped; NULL: the pin itself does */
} lease_pin;

/* A lease over memory that the caller has pinned; the pin is the lease's from now on, also where NULL
 * is returned. */
PyObject *lease_over(lease_pin pin, void *address, Py_ssize_t bytes, int writable);
/* Whether the range goes with the lease, as that of a value that is in no cache's books yet. */
void lease_own(PyObject *lease, bool owns);
uint64_t lease_handle(PyObject *lease); /* 0: not of a range, or released */
/* What it pins; NULL with an error set where it is no lease, or released. */
void *lease_memory(PyObject *lease, Py_ssize_t *bytes);
int lease_add_type(PyObject *module);

/* A lease that takes over a pin the caller has. */
PyObject *lease_of_pinned(uint64_t handle, Py_ssize_t bytes, int writable);

/* A lease over a range that is all there. NULL where it is not, without an error set. */
PyObject *lease_of_whole(uint64_t handle, Py_ssize_t bytes);

/* What a cache knows of a value that has a range of its own (entry.c). */
typedef struct {
    PyObject_HEAD
    unsigned long long handle;
    Py_ssize_t nbytes;
    PyObject *decode; /* called with the lease */
    double expires;
    Py_ssize_t weight; /* of what decode returns; -1 until it was asked for */
    char views, array;
    Py_ssize_t copies; /* bytes that decoding allocates, roughly */
} cache_entry;

bool is_entry(PyObject *object);
PyObject *entry_make(cache_entry content);
int entry_add_type(PyObject *module);

/* A cache's lock (lock.c). lock_now does not wait: 1 where it was free or ours, 0 where it was not.
 * lock_waiting is -1 with an error set where a signal's handler raised. */
bool is_lock(PyObject *object);
int lock_now(PyObject *lock);
int lock_waiting(PyObject *lock);
void unlock(PyObject *lock);
/* Whether what it guards was left half changed; and that it is. */
bool lock_is_torn(PyObject *lock);
void lock_tear(PyObject *lock);
int lock_add_type(PyObject *module);

/* A computation under way (flight.h), and all of a cache. */
typedef struct flight flight;
bool is_flights(PyObject *object);
/* Computes, as a part of the flight. */
typedef PyObject *(*flight_work)(void *context, flight *mine);
/* What `work` returns, done by nobody else for the key meanwhile. NULL with an error set, or where `work`
 * set none, or where another is at it: `other` then, a new reference. With `anyway` another one does not
 * matter. */
PyObject *fly(PyObject *flights, PyObject *key, bool anyway, flight_work work, void *context, flight **other);
/* Whether what the flight computes is not to be stored. Under the cache's lock. */
bool flight_is_stale(PyObject *object);
/* The key was set or forgotten: what is being computed for it is not stored, and nobody joins it any more.
 * Under the cache's lock. -1 with an error set. */
int flights_drop(PyObject *flights, PyObject *key);
int flight_add_types(PyObject *module);

/* What a recaller answers to a key: a new reference, or NULL where it has to be looked for slowly, or
 * with an error set. */
PyObject *recall(PyObject *recaller, PyObject *key);
/* Counts a hit in the hot front. -1 with an error set. */
int recall_count_hot(PyObject *recaller, PyObject *key);
bool is_recaller(PyObject *object);
int recall_add_type(PyObject *module);

/* What a request for a key without a value counts as, a VRANGE_REQUEST_. -1 where there is one, or it is
 * not known natively, or with an error set. */
int keep_why_absent(PyObject *keeper, PyObject *key);
/* A view of where the value is stored now, which `by_flight` computed; NULL: nobody did, it is set. NULL where
 * it has to be stored slowly, or with an error set. */
PyObject *keep(PyObject *keeper, PyObject *key, PyObject *value, uint64_t cost_ns, PyObject *by_flight);
bool is_keeper(PyObject *object);
int keep_add_type(PyObject *module);

typedef struct {
    PyObject *function, *args, *kwargs; /* kwargs may be NULL */
} call_of;

/* What the call returns, as it is kept under the key. NULL where it has to be led slowly, and nothing was
 * done, or with an error set. */
PyObject *lead(PyObject *leader, PyObject *key, call_of call);
bool is_leader(PyObject *object);
int lead_add_type(PyObject *module);

/* A vrange_regenerate whose context is a callable: (address, offset, bytes). */
int regenerate_by_python(void *to, size_t offset, size_t bytes, void *context);
PyObject *hit_python_regenerator(PyObject *module, PyObject *unused);

/* What a key costs in memory, roughly: itself, and of a tuple its items. No error is set. */
Py_ssize_t key_bytes(PyObject *key);

int room_add_type(PyObject *module);
int leaves_add_type(PyObject *module);
int hot_add_type(PyObject *module);

typedef struct {
    uint64_t started_ns, cpu_ns, waits;
} stopwatch;

typedef struct {
    uint64_t passed_ns, cost_ns;
} time_taken;

/* For the thread that starts it. */
stopwatch stopwatch_start(void);
time_taken stopwatch_read(const stopwatch *watch);
int stopwatch_add_type(PyObject *module);

/* A Viewer makes an ndarray of a lease (ndarray.c). */
bool is_viewer(PyObject *object);
PyObject *view_lease(PyObject *viewer, PyObject *lease);
/* The Viewer that is known for arrays like this one, borrowed; NULL where there is none, or where it is
 * not an array that lies in memory row by row. No error is set. */
PyObject *viewer_of_array(PyObject *object);
/* Where its bytes are. */
vrange_part array_content(PyObject *array, PyObject *its_viewer);
int ndarray_add_type(PyObject *module);

/* From here copying takes longer than winning the GIL back. */
#define LET_OTHERS_RUN_BYTES (1 << 20)

/* Makes a type and puts it into the module; the reference is for the caller to keep. NULL with an error
 * set. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);

/* What the collector asks of a type, given where its references to Python objects are; 0 ends them. */
int visit_references(PyObject *object, const size_t *offsets, visitproc visit, void *arg);
int clear_references(PyObject *object, const size_t *offsets);
void free_collected(PyObject *object, const size_t *offsets);

/* Raises what a negative errno of the core means. Always returns NULL. */
PyObject *raise_errno(int error, const char *doing);

#endif
