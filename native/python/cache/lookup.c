/* Recalling: a hit on a value that lies in a range of its own, without a Python frame.
 *
 * What is hot is answered from a dict (call.c). The next most frequent answer is a value that nobody
 * holds and nobody took: find its entry, pin its range, make the object over it. In Python that is
 * half a dozen frames, which cost more than the pin and push the program's own code out of the
 * processor's caches. Whatever is not that simple (lost, packed, expired, not to be unpickled) is left
 * to recall.py, which looks again by itself. */
#include "python/hit.h"

#include <stddef.h>
#include <structmember.h>

#include "pressure/room.h"
#include "counters/stats.h"

#define HITS_PER_CONTEST 4 /* as in recall.py, for packed values */
#define HOT_HITS_PER_USE 16
#define WORTHWHILE 1.25f   /* times the uses: an exchange costs what twenty hits gain */

typedef struct {
    PyObject_HEAD
    PyObject *index; /* dict, key to entry, or to something else that is not ours to read */
    PyObject *lock;  /* the cache's */
    PyObject *held;  /* dict of the hot front, key to weight, the longest held first */
    PyObject *admit; /* called with key, entry and value, where it may become hot; NULL: it never may */
    PyObject *absent;
    vrange_account *account;
    unsigned contests;
    uint32_t draw;
    char front_is_full; /* or was when it was last asked */
} recaller;

/* Whether this one is used so much more than the value that the front has held longest that it is worth
 * the exchange: 1 or 0, or -1 with an error set. If not, that becomes the youngest. Under the cache's lock;
 * where somebody has it, there is no contest. */
static int contest(recaller *self, const cache_entry *found) {
    PyObject *key, *weight;
    Py_ssize_t place = 0;
    int won = 1;
    const int locked = lock_now(self->lock);
    if (locked <= 0) return locked;
    if (PyDict_Next(self->held, &place, &key, &weight)) {
        Py_INCREF(key);
        Py_INCREF(weight);
        PyObject *oldest = PyDict_GetItemWithError(self->index, key);
        if (PyErr_Occurred()) {
            won = -1;
        } else if (oldest && is_entry(oldest) && /* of a packed value it is not known */
                   vrange_uses(found->handle) <
                       WORTHWHILE * vrange_uses(((cache_entry *)oldest)->handle)) {
            won = PyDict_DelItem(self->held, key) < 0 || PyDict_SetItem(self->held, key, weight) < 0 ? -1 : 0;
            if (won < 0) lock_tear(self->lock);
        }
        Py_DECREF(key);
        Py_DECREF(weight);
    }
    unlock(self->lock);
    return won;
}

/* A front that is full lets one value go for each that it takes, so that has to be worth it, and not
 * every hit looks. */
static int offer_to_front(recaller *self, PyObject *key, cache_entry *found, PyObject *value) {
    if (!self->admit) return 0;
    if (self->front_is_full) {
        if (++self->contests % HITS_PER_CONTEST) return 0;
        const int won = contest(self, found);
        if (won <= 0) return won;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(self->admit, key, found, value, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *decode_once(const cache_entry *e, PyObject *lease) {
    if (is_viewer(e->decode)) return view_lease(e->decode, lease);
    return PyObject_CallFunctionObjArgs(e->decode, lease, NULL);
}

/* An exception that is not raised again was not the value's: a signal's handler raised it, and it goes to
 * who asks. What a value raises is left to recall.py, which knows what to say. */
static PyObject *decode(const cache_entry *e, PyObject *lease) {
    PyObject *value = decode_once(e, lease);
    if (value || !PyErr_ExceptionMatches(PyExc_Exception)) return value;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    value = decode_once(e, lease);
    if (value && !PyErr_GivenExceptionMatches(type, PyExc_MemoryError)) {
        Py_DECREF(value);
        PyErr_Restore(type, error, traceback);
        return NULL;
    }
    if (!value && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return value;
}

PyObject *recall(PyObject *object, PyObject *key) {
    recaller *self = (recaller *)object;
    PyObject *found = PyDict_GetItemWithError(self->index, key);
    if (!found || !is_entry(found)) return NULL;
    if (((cache_entry *)found)->copies >= (Py_ssize_t)ROOM_BYTES) return NULL; /* there has to be room */
    Py_INCREF(found);
    cache_entry *e = (cache_entry *)found;
    PyObject *lease = lease_of_whole(e->handle, e->nbytes);
    PyObject *value = lease ? decode(e, lease) : NULL;
    Py_XDECREF(lease);
    if (!value) {
        /* Lost, or not to be decoded: recall.py looks again. */
        if (!lease && PyErr_Occurred()) PyErr_Clear();
    } else if (PyDict_GetItemWithError(self->index, key) != found) {
        Py_CLEAR(value); /* replaced by what decoding ran */
    } else {
        stats_request_with_gil(self->account, VRANGE_REQUEST_RESIDENT);
        if (offer_to_front(self, key, e, value) < 0) Py_CLEAR(value);
    }
    Py_DECREF(found);
    return value;
}

/* What is hot is answered without a look at its range, and would seem unused for as long as it is, and
 * the first to go afterwards. So a sample of hot hits counts for all of them; drawn, as keys that are asked
 * for in turn would otherwise meet the same place of it for ever. */
int recall_count_hot(PyObject *object, PyObject *key) {
    recaller *self = (recaller *)object;
    stats_request_with_gil(self->account, VRANGE_REQUEST_HOT);
    self->draw = self->draw * 1664525u + 1013904223u; /* Numerical Recipes' */
    if (self->draw >> 16 & (HOT_HITS_PER_USE - 1)) return 0;
    PyObject *found = PyDict_GetItemWithError(self->index, key);
    if (!found) return PyErr_Occurred() ? -1 : 0;
    if (is_entry(found)) vrange_used(((cache_entry *)found)->handle, HOT_HITS_PER_USE);
    return 0;
}

static PyObject *recaller_count_hot(PyObject *object, PyObject *key) {
    return recall_count_hot(object, key) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *recaller_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    PyObject *key;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "recall(key)");
    if (!PyArg_ParseTuple(args, "O", &key)) return NULL;
    PyObject *value = recall(object, key);
    return value || PyErr_Occurred() ? value : Py_NewRef(((recaller *)object)->absent);
}

static PyObject *recaller_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"index", "lock", "held", "admit", "absent", "account", NULL};
    PyObject *index, *lock, *held, *admit, *absent;
    unsigned long long account;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO!OOK", names, &PyDict_Type, &index, &lock,
                                     &PyDict_Type, &held, &admit, &absent, &account))
        return NULL;
    if (!is_lock(lock)) return PyErr_Format(PyExc_TypeError, "lock must be a Lock");
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    recaller *self = (recaller *)allocate(type, 0);
    if (!self) return NULL;
    self->index = Py_NewRef(index);
    self->lock = Py_NewRef(lock);
    self->held = Py_NewRef(held);
    self->admit = admit == Py_None ? NULL : Py_NewRef(admit);
    self->absent = Py_NewRef(absent);
    self->account = (vrange_account *)(uintptr_t)account;
    return (PyObject *)self;
}

static const size_t references[] = {
    offsetof(recaller, index), offsetof(recaller, lock), offsetof(recaller, held),
    offsetof(recaller, admit), offsetof(recaller, absent), 0};

static int recaller_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int recaller_clear(PyObject *object) {
    return clear_references(object, references);
}

static void recaller_dealloc(PyObject *object) { free_collected(object, references); }

static PyTypeObject *recaller_type;

int recall_add_type(PyObject *module) {
    static PyMemberDef settings[] = {
        {"front_is_full", T_BOOL, offsetof(recaller, front_is_full), 0,
         "Whether `admit` is to be asked only for what is used more than what is held longest."},
        {0}};
    static PyMethodDef methods[] = {
        {"count_hot", recaller_count_hot, METH_O, "count_hot(key): counts a hit in the hot front."}, {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Recaller(index, lock, held, admit, absent, account)\n\n"
                    "recaller(key): the value of the key's Entry in the dict `index`, or `absent` "
                    "where it has none or that takes a closer look."},
        {Py_tp_new, recaller_new},
        {Py_tp_dealloc, recaller_dealloc},
        {Py_tp_traverse, recaller_traverse},
        {Py_tp_clear, recaller_clear},
        {Py_tp_call, recaller_call},
        {Py_tp_methods, methods},
        {Py_tp_members, settings},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Recaller",
        .basicsize = sizeof(recaller),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    recaller_type = add_type(module, &spec);
    return recaller_type ? 0 : -1;
}

bool is_recaller(PyObject *object) {
    return Py_TYPE(object) == recaller_type;
}
