/* Keeping: an array that was computed is stored without a Python frame. What lookup.c is to a hit.
 *
 * Computing a value pushes everything else out of the processor's caches, so what runs after it costs
 * several times what it costs in a loop, and Python code most of all. The most frequent value is one like
 * those before it: an array of a known shape and type, under a key that has none. Whatever is not that
 * simple is left to runtime/vrange/_cache/store.py, as is making room. */
#include "python/hit.h"

#include <stddef.h>
#include <structmember.h>

#include "ranges/arena.h"
#include "os/os.h"

typedef struct {
    PyObject_HEAD
    PyObject *index;  /* dict, key to entry */
    PyObject *keys;   /* dict, handle to key */
    PyObject *held;   /* dict of the hot front's values, by key */
    PyObject *ghosts; /* dict of what is known of keys without a value, by hash */
    PyObject *sweep;  /* called where ranges were lost, or there are too many */
    PyObject *lock;   /* the cache's */
    PyObject *flights; /* the cache's, under way (flight.c) */
    unsigned long long arena; /* 0: everything is stored slowly */
    Py_ssize_t bytes, max_bytes, bytes_least, bytes_most;
    Py_ssize_t key_bytes, entries_most, books_most;
} keeper;

static PyTypeObject *keeper_type;

static vrange_arena *arena_of(const keeper *self) { return (vrange_arena *)(uintptr_t)self->arena; }

/* What the books themselves cost, by entry: measured, with dicts as they are just after growing. */
#define ENTRY_BYTES 150 /* in the index and a slab */
#define RANGE_BYTES 400 /* more where the value has a range of its own */
#define GHOST_BYTES 200

static Py_ssize_t books_bytes(const keeper *self) {
    return self->key_bytes + ENTRY_BYTES * PyDict_Size(self->index) + RANGE_BYTES * PyDict_Size(self->keys) +
           GHOST_BYTES * PyDict_Size(self->ghosts);
}

static bool has_too_many(const keeper *self) {
    return PyDict_Size(self->index) > self->entries_most || books_bytes(self) > self->books_most;
}

/* 1 or 0, or -1 with an error set. */
static int has_value(const keeper *self, PyObject *key) {
    const int found = PyDict_Contains(self->index, key);
    return found ? found : PyDict_Contains(self->held, key);
}

/* What is remembered of a key without a value, as ghosts.py has it. */
typedef struct {
    Py_hash_t hash;
    unsigned uses, epoch;
    int purged;
} ghost;

/* 1, or 0 where nothing is remembered, or -1 with an error set. */
static int find_ghost(const keeper *self, PyObject *key, ghost *found) {
    if (PyDict_Size(self->ghosts) == 0) return 0;
    found->hash = PyObject_Hash(key);
    PyObject *hash = found->hash == -1 ? NULL : PyLong_FromSsize_t(found->hash);
    if (!hash) return -1;
    PyObject *content = PyDict_GetItemWithError(self->ghosts, hash);
    Py_DECREF(hash);
    if (!content) return PyErr_Occurred() ? -1 : 0;
    return PyArg_ParseTuple(content, "IIp", &found->uses, &found->epoch, &found->purged) ? 1 : -1;
}

static uint32_t uses_before(const keeper *self, const ghost *of) {
    const uint32_t epochs = vrange_arena_epoch(arena_of(self)) - of->epoch;
    return epochs < 32 ? of->uses >> epochs : 0;
}

static void forget_ghost(keeper *self, const ghost *of) {
    PyObject *hash = PyLong_FromSsize_t(of->hash);
    if (!hash || PyDict_DelItem(self->ghosts, hash) < 0) PyErr_Clear(); /* it went meanwhile */
    Py_XDECREF(hash);
}

/* Whether what the flight computed may be stored; or, of what was set, that whatever is being computed may
 * not any more. Under the lock. */
static int may_enter(keeper *self, PyObject *key, PyObject *by_flight) {
    if (!self->arena || lock_is_torn(self->lock)) return 0;
    if (by_flight) return !flight_is_stale(by_flight);
    return flights_drop(self->flights, key) < 0 ? -1 : 1;
}

static int enter_locked(keeper *self, PyObject *key, const ghost *before, PyObject *entry, PyObject *number,
                        Py_ssize_t bytes) {
    const int found = has_value(self, key);
    if (found) return found < 0 ? -1 : 0;
    if (PyDict_SetItem(self->keys, number, key) < 0) return -1;
    if (PyDict_SetItem(self->index, key, entry) < 0) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        if (PyDict_DelItem(self->keys, number) < 0) PyErr_Clear();
        PyErr_Restore(type, error, traceback);
        return -1;
    }
    self->bytes += bytes;
    if (before) forget_ghost(self, before);
    return 1;
}

/* Into the books. 1, or 0 where there is a value under the key by now, or it was set or forgotten since it
 * began to be computed, or the cache was closed; or -1 with an error set. */
static int enter(keeper *self, PyObject *key, const ghost *before, PyObject *entry, uint64_t handle,
                 Py_ssize_t bytes, PyObject *by_flight) {
    const Py_ssize_t its_key_bytes = key_bytes(key);
    PyObject *number = PyLong_FromUnsignedLongLong(handle);
    if (!number) return -1;
    int entered = -1;
    if (lock_waiting(self->lock) >= 0) {
        entered = may_enter(self, key, by_flight);
        if (entered > 0) entered = enter_locked(self, key, before, entry, number, bytes);
        if (entered > 0) self->key_bytes += its_key_bytes;
        unlock(self->lock);
    }
    Py_DECREF(number);
    return entered;
}

static PyObject *store(keeper *self, PyObject *key, PyObject *value, PyObject *its_viewer,
                       const ghost *before, uint64_t cost_ns, PyObject *by_flight) {
    const uint32_t uses = before ? uses_before(self, before) : 0;
    const vrange_part content = array_content(value, its_viewer);
    const Py_ssize_t page = (Py_ssize_t)os_page_bytes();
    const Py_ssize_t bytes = (Py_ssize_t)content.bytes, in_pages = (bytes + page - 1) / page * page;
    uint64_t handle;
    if (vrange_store(arena_of(self), &content, 1, cost_ns, uses, &handle) != VRANGE_OK)
        return NULL; /* keep.py makes room, or knows what to say */
    const cache_entry description = {.handle = handle,
                                     .nbytes = bytes,
                                     .decode = its_viewer,
                                     .expires = Py_HUGE_VAL,
                                     .views = 1,
                                     .array = 1};
    PyObject *entry = entry_make(description);
    PyObject *lease = lease_of_pinned(handle, bytes, 0);
    PyObject *view = entry && lease ? view_lease(its_viewer, lease) : NULL;
    if (!view || enter(self, key, before, entry, handle, in_pages, by_flight) <= 0) {
        Py_CLEAR(view);
        vrange_free(handle);
    }
    Py_XDECREF(entry);
    Py_XDECREF(lease);
    return view;
}

static int sweep(keeper *self) {
    if (!self->arena) return 0;
    if (!arena_has_lost(arena_of(self)) && self->bytes <= self->max_bytes && !has_too_many(self)) return 0;
    PyObject *done = PyObject_CallFunctionObjArgs(self->sweep, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int keep_why_absent(PyObject *object, PyObject *key) {
    const keeper *self = (keeper *)object;
    if (!self->arena) return -1;
    const int found = PyDict_Contains(self->index, key);
    if (found) return -1;
    ghost before;
    const int remembered = find_ghost(self, key, &before);
    if (remembered < 0) return -1;
    return remembered && before.purged ? VRANGE_REQUEST_PURGED : VRANGE_REQUEST_MISS;
}

PyObject *keep(PyObject *object, PyObject *key, PyObject *value, uint64_t cost_ns, PyObject *by_flight) {
    keeper *self = (keeper *)object;
    PyObject *its_viewer = viewer_of_array(value);
    if (!self->arena || !its_viewer) return NULL;
    const Py_ssize_t bytes = (Py_ssize_t)array_content(value, its_viewer).bytes;
    if (bytes < self->bytes_least || bytes > self->bytes_most || bytes >= LET_OTHERS_RUN_BYTES)
        return NULL;
    if (has_value(self, key) != 0) return NULL;
    Py_INCREF(its_viewer); /* of its place another may be put, while Python code runs */
    ghost before;
    const int remembered = find_ghost(self, key, &before);
    PyObject *view = NULL;
    if (remembered >= 0)
        view = store(self, key, value, its_viewer, remembered ? &before : NULL, cost_ns, by_flight);
    Py_DECREF(its_viewer);
    if (view && sweep(self) < 0) Py_CLEAR(view);
    /* Without memory for an entry keep.py says what becomes of the value. */
    if (!view && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError)) PyErr_Clear();
    return view;
}

bool is_keeper(PyObject *object) { return Py_TYPE(object) == keeper_type; }

static PyObject *keeper_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    PyObject *key, *value, *by_flight;
    unsigned long long cost_ns;
    if (kwargs && PyDict_Size(kwargs))
        return PyErr_Format(PyExc_TypeError, "keep(key, value, cost_ns, flight)");
    if (!PyArg_ParseTuple(args, "OOKO", &key, &value, &cost_ns, &by_flight)) return NULL;
    PyObject *view = keep(object, key, value, cost_ns, by_flight == Py_None ? NULL : by_flight);
    return view || PyErr_Occurred() ? view : Py_NewRef(Py_None);
}

static PyObject *keeper_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"index", "keys", "held", "ghosts", "sweep", "lock", "flights", "bytes_least",
                            NULL};
    PyObject *index, *keys, *held, *ghosts, *sweep, *lock, *flights;
    Py_ssize_t bytes_least;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!O!OOOn", names, &PyDict_Type, &index,
                                     &PyDict_Type, &keys, &PyDict_Type, &held, &PyDict_Type, &ghosts,
                                     &sweep, &lock, &flights, &bytes_least))
        return NULL;
    if (!is_lock(lock) || !is_flights(flights))
        return PyErr_Format(PyExc_TypeError, "lock must be a Lock, and flights Flights");
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    keeper *self = (keeper *)allocate(type, 0);
    if (!self) return NULL;
    self->index = Py_NewRef(index);
    self->keys = Py_NewRef(keys);
    self->held = Py_NewRef(held);
    self->ghosts = Py_NewRef(ghosts);
    self->sweep = Py_NewRef(sweep);
    self->lock = Py_NewRef(lock);
    self->flights = Py_NewRef(flights);
    self->bytes_least = bytes_least;
    self->bytes_most = self->max_bytes = self->entries_most = self->books_most = PY_SSIZE_T_MAX;
    return (PyObject *)self;
}

static const size_t references[] = {
    offsetof(keeper, index), offsetof(keeper, keys), offsetof(keeper, held),
    offsetof(keeper, ghosts), offsetof(keeper, sweep), offsetof(keeper, lock),
    offsetof(keeper, flights), 0};

static int keeper_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int keeper_clear(PyObject *object) {
    ((keeper *)object)->arena = 0;
    return clear_references(object, references);
}

static void keeper_dealloc(PyObject *object) { free_collected(object, references); }

static PyObject *keeper_books_bytes(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromSsize_t(books_bytes((keeper *)object));
}

static PyObject *keeper_has_too_many(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(has_too_many((keeper *)object));
}

int keep_add_type(PyObject *module) {
    static PyMemberDef members[] = {
        {"arena", T_ULONGLONG, offsetof(keeper, arena), 0,
         "Where to store; 0: nowhere, everything is stored slowly."},
        {"bytes", T_PYSSIZET, offsetof(keeper, bytes), 0,
         "Of all ranges of the cache, in pages. Who lets ranges go takes theirs off."},
        {"max_bytes", T_PYSSIZET, offsetof(keeper, max_bytes), 0, "From where on `sweep` is called."},
        {"key_bytes", T_PYSSIZET, offsetof(keeper, key_bytes), 0,
         "Of all keys. Who lets keys go takes theirs off."},
        {"entries_most", T_PYSSIZET, offsetof(keeper, entries_most), 0, "From where on `sweep` is called."},
        {"books_most", T_PYSSIZET, offsetof(keeper, books_most), 0, "Likewise, by `books_bytes`."},
        {"bytes_most", T_PYSSIZET, offsetof(keeper, bytes_most), 0,
         "Of the largest range that could ever fit. What is larger is stored slowly, which refuses it."},
        {0}};
    static PyGetSetDef counted[] = {
        {"books_bytes", keeper_books_bytes, NULL, "What keys, entries and ghosts cost, roughly.", NULL},
        {"has_too_many", keeper_has_too_many, NULL, "Whether there are more than may be.", NULL},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Keeper(index, keys, held, ghosts, sweep, lock, flights, bytes_least)\n\n"
                    "keeper(key, value, cost_ns, flight): stores an array like one that was stored before, under "
                    "a key that has no value, and returns the view that stands for it; or None, and "
                    "nothing was done."},
        {Py_tp_new, keeper_new},
        {Py_tp_dealloc, keeper_dealloc},
        {Py_tp_traverse, keeper_traverse},
        {Py_tp_clear, keeper_clear},
        {Py_tp_call, keeper_call},
        {Py_tp_members, members},
        {Py_tp_getset, counted},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Keeper",
        .basicsize = sizeof(keeper),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    keeper_type = add_type(module, &spec);
    return keeper_type ? 0 : -1;
}
