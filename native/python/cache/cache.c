/* The type CacheCore: the core as Python's classes see it. core.h says what guards it. */
#include "python/cache/cache.h"

#include <stddef.h>
#include <structmember.h>

#include "counters/stats.h"
#include "python/cache/check.h"
#include "python/cache/clear.h"
#include "python/cache/codec.h"
#include "python/cache/compute.h"
#include "python/cache/compute_async.h"
#include "python/cache/evict.h"
#include "python/cache/hot_front.h"
#include "python/cache/inspect.h"
#include "python/cache/limbo.h"
#include "python/cache/lookup.h"
#include "python/cache/pace.h"
#include "python/cache/refresh.h"
#include "python/cache/store.h"

static PyTypeObject *core_type;

bool is_core(PyObject *object) { return PyObject_TypeCheck(object, core_type); }

#define CORE(object) ((cache_core *)(object))
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static bool takes(Py_ssize_t count, Py_ssize_t wanted, const char *usage) {
    if (count == wanted) return true;
    PyErr_SetString(PyExc_TypeError, usage);
    return false;
}

/* ---- lookups --------------------------------------------------------------------------------- */

static PyObject *core_get(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    cache_core *self = CORE(object);
    looked_up found = {0};
    if (!takes(count, 2, "get(key, default)")) return NULL;
    key_hash hash;
    if (!hash_key(args[0], &hash)) return NULL;
    const int result = core_look_up(self, args[0], hash, &found);
    if (result == LOOKUP_FOUND) return found.value;
    if (result == LOOKUP_FAILED) return NULL;
    stats_request_with_gil(self->account, found.outcome);
    return Py_NewRef(args[1]);
}

static PyObject *core_peek(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes(count, 2, "peek(key, default)")) return NULL;
    key_hash hash;
    looked_up found = {.is_quiet = true};
    if (!hash_key(args[0], &hash)) return NULL;
    const int result = core_look_up(CORE(object), args[0], hash, &found);
    if (result == LOOKUP_FAILED) return NULL;
    return result == LOOKUP_FOUND ? found.value : Py_NewRef(args[1]);
}

static PyObject *core_get_or_compute(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes(count, 2, "get_or_compute(key, function)")) return NULL;
    key_hash hash;
    if (!hash_key(args[0], &hash)) return NULL;
    looked_up found = {.stale = STALE_IS_TAKEN};
    const int result = core_look_up(CORE(object), args[0], hash, &found);
    if (result == LOOKUP_FOUND) return refresh_by(CORE(object), args[0], &found, args[1], NULL);
    PyObject *nothing = result == LOOKUP_FAILED ? NULL : PyTuple_New(0);
    if (!nothing) return NULL;
    const missed_key missed = {hash, found.version};
    return core_answer(CORE(object), Py_NewRef(args[0]), missed, args[1], nothing, NULL);
}

static PyObject *core_answer_async_call(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes(count, 4, "answer_async(key, function, loop, has_waited)")) return NULL;
    return core_answer_async(CORE(object), args[0], args[1], args[2], args[3] == Py_True);
}

static PyObject *core_unstored(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes(count, 2, "unstored(value, took_ns)")) return NULL;
    const unsigned long long took_ns = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    vrange_account_regenerated(CORE(object)->account, took_ns);
    return core_answer_unstored(CORE(object), Py_NewRef(args[0]));
}

static PyObject *core_contains(PyObject *object, PyObject *key) {
    cache_core *self = CORE(object);
    const entry_no number = core_find(self, key);
    if (number == FIND_FAILED) return NULL;
    if (!number) Py_RETURN_FALSE;
    const entry *e = entry_at(&self->index, number);
    if (e->value) Py_RETURN_TRUE;
    const uint64_t handle = core_range_of(self, e);
    const int state = vrange_state(handle);
    if (vrange_is_away(handle)) Py_RETURN_TRUE;
    return PyBool_FromLong(state != VRANGE_STATE_PURGED && state != VRANGE_STATE_FREED);
}

/* ---- storing and removing -------------------------------------------------------------------- */

static PyObject *core_set(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes(count, 4, "store(key, value, expires_ns, cost_ns)")) return NULL;
    const unsigned long long expires_ns = PyLong_AsUnsignedLongLong(args[2]);
    const unsigned long long cost_ns = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(args[3]);
    key_hash hash;
    if (PyErr_Occurred() || !hash_key(args[0], &hash)) return NULL;
    if (store_set(CORE(object), args[0], hash, args[1], expires_ns, cost_ns) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *core_remove(PyObject *object, PyObject *key) {
    cache_core *self = CORE(object);
    key_hash hash;
    if (!hash_key(key, &hash)) return NULL;
    const entry_no number = index_find(&self->index, key, hash);
    if (number == FIND_FAILED) return NULL;
    ghosts_forget(&self->ghosts, hash);
    bool had_value = false;
    if (number) {
        const entry *e = entry_at(&self->index, number);
        const bool is_expired = e->place != PLACE_FLIGHT && entry_is_expired(self, number);
        had_value = e->place != PLACE_FLIGHT && (e->place || e->value) && !is_expired;
        evict_entry(self, number, is_expired && !self->is_heir ? LEFT_EXPIRED : NOT_TOLD);
        limbo_drain(self);
    }
    return listener_pass(self, PyBool_FromLong(had_value));
}

/* One step: no other code runs between the lookup and the removal. */
static PyObject *core_pop(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    cache_core *self = CORE(object);
    if (!takes(count, 2, "pop(key, default)")) return NULL;
    key_hash hash;
    if (!hash_key(args[0], &hash)) return NULL;
    for (;;) {
        looked_up found = {0};
        const uint32_t version = self->index.version;
        const int result = core_look_up(self, args[0], hash, &found);
        if (result == LOOKUP_FAILED) return NULL;
        const entry_no number = index_find(&self->index, args[0], hash);
        if (number != FIND_FAILED && result == LOOKUP_FOUND && self->index.version != version && !number) {
            Py_DECREF(found.value); /* code that decoding ran removed it */
            continue;
        }
        if (number && number != FIND_FAILED) evict_entry(self, number, NOT_TOLD);
        if (number != FIND_FAILED) ghosts_forget(&self->ghosts, hash);
        limbo_drain(self);
        if (number == FIND_FAILED) {
            if (result == LOOKUP_FOUND) Py_DECREF(found.value);
            return NULL;
        }
        if (result != LOOKUP_FOUND) stats_request_with_gil(self->account, found.outcome);
        return listener_pass(self, result == LOOKUP_FOUND ? found.value : Py_NewRef(args[1]));
    }
}

static PyObject *core_count_request(PyObject *object, PyObject *waited) {
    const int answered = PyObject_IsTrue(waited);
    if (answered < 0) return NULL;
    stats_request_with_gil(CORE(object)->account, answered ? VRANGE_REQUEST_WAITED : VRANGE_REQUEST_MISS);
    Py_RETURN_NONE;
}

static PyObject *core_count_hit(PyObject *object, PyObject *unused) {
    (void)unused;
    stats_request_with_gil(CORE(object)->account, VRANGE_REQUEST_PEER);
    Py_RETURN_NONE;
}

static PyObject *core_clear(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(clear_now(CORE(object)));
}

static PyObject *core_bury(PyObject *object, PyObject *most) {
    const unsigned long wanted = PyLong_AsUnsignedLong(most);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(clear_some(CORE(object), (uint32_t)wanted));
}

static PyObject *core_close(PyObject *object, PyObject *unused) {
    (void)unused;
    cache_core *self = CORE(object);
    self->closed = true;
    self->arena = NULL; /* closing the arena frees its ranges */
    pace_end(self);
    return PyBool_FromLong(clear_now(self));
}

static PyObject *core_use_arena(PyObject *object, PyObject *args) {
    cache_core *self = CORE(object);
    unsigned long long address;
    Py_ssize_t bytes;
    int grows;
    if (!PyArg_ParseTuple(args, "Knp", &address, &bytes, &grows)) return NULL;
    if (!core_is_open(self)) return NULL;
    self->arena = (vrange_arena *)(uintptr_t)address;
    pace_open(self, !grows || self->max_bytes < PY_SSIZE_T_MAX || self->max_entries < PY_SSIZE_T_MAX);
    if (self->bytes_most > bytes) self->bytes_most = bytes;
    Py_RETURN_NONE;
}

/* ---- the type -------------------------------------------------------------------------------- */

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"owner", "account", "name", "open_arena", "encode",
                            "weigh", "as_answered", "wait", "give_up", "led", "ttl_ns",
                            "max_bytes", "hot_bytes", "max_entries", "copies", "on_evict", "stale_ns",
                            "refresh", NULL};
    PyObject *owner, *name, *open_arena, *encode, *weigh, *as_answered, *wait, *give_up, *led, *hot, *entries;
    PyObject *on_evict, *refresh;
    unsigned long long account, ttl_ns, stale_ns;
    Py_ssize_t max_bytes;
    int copies;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OKUOOOOOOOKnOOpOKO", names, &owner, &account, &name,
                                     &open_arena, &encode, &weigh, &as_answered, &wait, &give_up, &led, &ttl_ns,
                                     &max_bytes, &hot, &entries, &copies, &on_evict, &stale_ns, &refresh))
        return NULL;
    PyObject *get_led = PyObject_GetAttrString(led, "get"), *set_led = PyObject_GetAttrString(led, "set");
    const Py_ssize_t hot_bytes = hot == Py_None ? 0 : PyLong_AsSsize_t(hot);
    const Py_ssize_t max_entries = entries == Py_None ? PY_SSIZE_T_MAX : PyLong_AsSsize_t(entries);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    cache_core *self = get_led && set_led && !PyErr_Occurred() ? (cache_core *)allocate(type, 0) : NULL;
    if (!self) {
        Py_XDECREF(get_led);
        Py_XDECREF(set_led);
        return NULL;
    }
    self->owner = Py_NewRef(owner);
    self->account = (vrange_account *)(uintptr_t)account;
    self->name = Py_NewRef(name);
    self->open_arena = Py_NewRef(open_arena);
    self->encode = Py_NewRef(encode);
    self->weigh = Py_NewRef(weigh);
    self->as_answered = Py_NewRef(as_answered);
    self->wait = Py_NewRef(wait);
    self->give_up = Py_NewRef(give_up);
    self->on_evict = Py_XNewRef(on_evict == Py_None ? NULL : on_evict);
    self->refresh = Py_XNewRef(refresh == Py_None ? NULL : refresh);
    self->stale_ns = stale_ns;
    self->get_led = get_led;
    self->set_led = set_led;
    self->ttl_ns = ttl_ns;
    self->bytes_most = self->max_bytes = max_bytes;
    self->max_entries = max_entries;
    self->copies = copies != 0;
    self->index.shares_bound = entries == Py_None;
    self->hot_is_automatic = hot == Py_None;
    hot_join(self, hot_bytes);
    core_join(self);
    return (PyObject *)self;
}

static const size_t references[] = {
    offsetof(cache_core, owner), offsetof(cache_core, name), offsetof(cache_core, open_arena),
    offsetof(cache_core, encode), offsetof(cache_core, weigh), offsetof(cache_core, wait),
    offsetof(cache_core, give_up), offsetof(cache_core, get_led), offsetof(cache_core, set_led),
    offsetof(cache_core, on_evict), offsetof(cache_core, as_answered), offsetof(cache_core, refresh), 0};

static int core_traverse(PyObject *object, visitproc visit, void *arg) {
    int result = index_visit(&CORE(object)->index, visit, arg);
    if (result == 0) result = clear_visit(CORE(object), visit, arg);
    if (result == 0) result = listener_visit(CORE(object), visit, arg);
    return result ? result : visit_references(object, references, visit, arg);
}

/* The callables stay: a finalizer in the same cycle may still use the cache. */
static int core_tp_clear(PyObject *object) {
    listener_forget(CORE(object));
    clear_now(CORE(object));
    while (clear_some(CORE(object), CLEARED_AT_ONCE)) {
    }
    return 0;
}

static void core_dealloc(PyObject *object) {
    cache_core *self = CORE(object);
    PyObject_GC_UnTrack(object);
    core_leave(self);
    self->closed = true;
    self->arena = NULL; /* its owner closes it */
    pace_end(self);
    core_tp_clear(object);
    free_collected(object, references);
}

int core_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"get", FAST(core_get), METH_FASTCALL, "get(key, default): the value; counts the request."},
        {"peek", FAST(core_peek), METH_FASTCALL, "peek(key, default): the value; not counted."},
        {"get_or_compute", FAST(core_get_or_compute), METH_FASTCALL,
         "get_or_compute(key, function): the value, or what function() returns, stored."},
        {"answer_async", FAST(core_answer_async_call), METH_FASTCALL,
         "answer_async(key, function, loop, has_waited): an awaitable of the value, or of another "
         "caller's Flight."},
        {"unstored", FAST(core_unstored), METH_FASTCALL,
         "unstored(value, took_ns): counts a computation whose value is not stored; what its caller gets."},
        {"contains", core_contains, METH_O, "contains(key): whether the value seems to be there."},
        {"store", FAST(core_set), METH_FASTCALL,
         "store(key, value, expires_ns, cost_ns): expires_ns is of the monotonic clock; 0: by the ttl. "
         "cost_ns 0: unknown."},
        {"renew", FAST(refresh_renew), METH_FASTCALL,
         "renew(key, stamp, value, cost_ns): stores in place of the value with this stamp; False: it is gone."},
        {"remove", core_remove, METH_O, "remove(key): False if there is no value."},
        {"pop", FAST(core_pop), METH_FASTCALL, "pop(key, default): removes and returns the value."},
        {"count_request", core_count_request, METH_O,
         "count_request(waited): counts a request that found a flight; `waited`: the flight answered it."},
        {"count_hit", core_count_hit, METH_NOARGS,
         "count_hit(): counts a request that the value of a peer answered."},
        {"clear", core_clear, METH_NOARGS, "clear(): removes all entries; True: some are still to be buried."},
        {"bury", core_bury, METH_O, "bury(most): frees up to `most` cleared entries; True: some are left."},
        {"close", core_close, METH_NOARGS, "close(): clears for good, and returns as clear() does."},
        {"use_arena", core_use_arena, METH_VARARGS, "use_arena(address, bytes, grows): where to store."},
        {"count", core_count, METH_NOARGS, "count(): how many values there are."},
        {"keys", core_keys, METH_NOARGS, "keys(): a list, the oldest first."},
        {"handles", core_handles, METH_O, "handles(keys): a set of ranges; of all, with None."},
        {"cool", core_cool, METH_O, "cool(keys): lets go of hot values; of all, with None."},
        {"flight", core_flight, METH_O, "flight(key): the flight that computes it, or None."},
        {"hot_keys", core_hot_keys, METH_NOARGS, "hot_keys(): the longest held first."},
        {"check", core_check, METH_NOARGS, "check(): AssertionError where it does not agree with itself."},
        {"uses", core_uses, METH_O, "uses(key): how often it was asked for, in sixteenths and aged."},
        {0}};
    static PyMemberDef members[] = {
        {"closed", T_BOOL, offsetof(cache_core, closed), READONLY, "Whether close() was called."},
        {"arena", T_ULONGLONG, offsetof(cache_core, arena), READONLY, "Its address; 0: none."},
        {"bytes", T_PYSSIZET, offsetof(cache_core, bytes), READONLY, "Of all ranges, in pages."},
        {"index_bytes", T_PYSSIZET, offsetof(cache_core, index.bytes), READONLY, "Of keys and entries."},
        {"hot_bytes", T_PYSSIZET, offsetof(cache_core, hot_bytes), READONLY, "Held strongly."},
        {"object_bytes", T_PYSSIZET, offsetof(cache_core, object_bytes), READONLY,
         "The part of hot_bytes that lies outside ranges."},
        {"hot_limit", T_PYSSIZET, offsetof(cache_core, hot_limit), READONLY,
         "The most that may be held strongly."},
        {"hand_steps", T_ULONGLONG, offsetof(cache_core, hand_steps), READONLY,
         "Entries that the hand looked at to choose victims."},
        {"under_way", T_UINT, offsetof(cache_core, flight_count), READONLY, "Computations."},
        {0}};
    static PyGetSetDef computed[] = {
        {"entries", core_entries, NULL, "Values, with those that were lost and not noticed yet.", NULL}, {0}};
    static PyType_Slot slots[] = {{Py_tp_doc, "The native core of a cache."},
                                  {Py_tp_getset, computed},
                                  {Py_tp_new, core_new},
                                  {Py_tp_dealloc, core_dealloc},
                                  {Py_tp_traverse, core_traverse},
                                  {Py_tp_clear, core_tp_clear},
                                  {Py_tp_methods, methods},
                                  {Py_tp_members, members},
                                  {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.CacheCore",
                               .basicsize = sizeof(cache_core),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    core_type = add_type(module, &spec);
    return core_type ? 0 : -1;
}
