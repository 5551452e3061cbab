/* Recalling: a hit on a value that lies in a range of its own, without a Python frame.
 *
 * What is hot is answered from a dict (hot.c). The next most frequent answer is a value that nobody
 * holds and nobody took: find its entry, pin its range, make the object over it. In Python that is
 * half a dozen frames, which cost more than the pin and push the program's own code out of the
 * processor's caches. Whatever is not that simple (lost, packed, expired, not to be unpickled) is left
 * to entries.py, which looks again by itself. */
#include "hit.h"

#include <stddef.h>
#include <structmember.h>

#include "stats.h"

/* Asking costs as much as ten hits on an array, all in Python that others have pushed out of the
 * processor's caches; most of what is not an array takes longer to read back. */
#define HITS_PER_CONTEST 4
#define HITS_PER_CONTEST_OF_ARRAYS 16

typedef struct {
    PyObject_HEAD
    unsigned long long handle;
    Py_ssize_t nbytes;
    PyObject *decode; /* called with the lease */
    double expires;
    Py_ssize_t weight; /* of what decode returns; -1 until it was asked for */
    char views, array;
} entry;

static PyObject *entry_type;

static PyObject *entry_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"handle", "nbytes", "decode", "views", "array", "expires", NULL};
    unsigned long long handle;
    Py_ssize_t nbytes;
    PyObject *decode;
    int views, array;
    double expires;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KnOppd", names, &handle, &nbytes, &decode, &views,
                                     &array, &expires))
        return NULL;
    entry *self = PyObject_New(entry, type);
    if (!self) return NULL;
    self->handle = handle;
    self->nbytes = nbytes;
    self->decode = Py_NewRef(decode);
    self->expires = expires;
    self->weight = -1;
    self->views = (char)views;
    self->array = (char)array;
    return (PyObject *)self;
}

static void entry_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_DECREF(((entry *)object)->decode);
    PyObject_Free(object);
    Py_DECREF(type);
}

typedef struct {
    PyObject_HEAD
    PyObject *index; /* dict, key to entry, or to something else that is not ours to read */
    PyObject *admit; /* called with key, entry and value, where it may become hot; NULL: it never may */
    PyObject *absent;
    vrange_account *account;
    unsigned contests;
    char front_is_full; /* or was when it was last asked */
} recaller;

/* A front that is full lets one value go for each that it takes, so that has to be worth it: not
 * every hit asks. */
static int offer_to_front(recaller *self, PyObject *key, entry *found, PyObject *value) {
    const unsigned hits = found->array ? HITS_PER_CONTEST_OF_ARRAYS : HITS_PER_CONTEST;
    if (!self->admit || (self->front_is_full && ++self->contests % hits)) return 0;
    PyObject *done = PyObject_CallFunctionObjArgs(self->admit, key, found, value, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *decode(const entry *e, PyObject *lease) {
    if (is_viewer(e->decode)) return view_lease(e->decode, lease);
    return PyObject_CallFunctionObjArgs(e->decode, lease, NULL);
}

PyObject *recall(PyObject *object, PyObject *key) {
    recaller *self = (recaller *)object;
    PyObject *found = PyDict_GetItemWithError(self->index, key);
    if (!found || Py_TYPE(found) != (PyTypeObject *)entry_type) return NULL;
    Py_INCREF(found);
    entry *e = (entry *)found;
    PyObject *lease = lease_of_whole(e->handle, e->nbytes);
    PyObject *value = lease ? decode(e, lease) : NULL;
    Py_XDECREF(lease);
    if (!value) {
        /* entries.py tries again, and knows what to say; but Ctrl-C is nobody's to keep. */
        if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
    } else if (PyDict_GetItemWithError(self->index, key) != found) {
        Py_CLEAR(value); /* replaced by what decoding ran */
    } else {
        stats_request_with_gil(self->account, VRANGE_REQUEST_RESIDENT);
        if (offer_to_front(self, key, e, value) < 0) Py_CLEAR(value);
    }
    Py_DECREF(found);
    return value;
}

static PyObject *recaller_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    PyObject *key;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "recall(key)");
    if (!PyArg_ParseTuple(args, "O", &key)) return NULL;
    PyObject *value = recall(object, key);
    return value || PyErr_Occurred() ? value : Py_NewRef(((recaller *)object)->absent);
}

static PyObject *recaller_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"index", "admit", "absent", "account", NULL};
    PyObject *index, *admit, *absent;
    unsigned long long account;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OOK", names, &PyDict_Type, &index, &admit,
                                     &absent, &account))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    recaller *self = (recaller *)allocate(type, 0);
    if (!self) return NULL;
    self->index = Py_NewRef(index);
    self->admit = admit == Py_None ? NULL : Py_NewRef(admit);
    self->absent = Py_NewRef(absent);
    self->account = (vrange_account *)(uintptr_t)account;
    return (PyObject *)self;
}

static int recaller_traverse(PyObject *object, visitproc visit, void *arg) {
    recaller *self = (recaller *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->index);
    Py_VISIT(self->admit);
    Py_VISIT(self->absent);
    return 0;
}

static int recaller_clear(PyObject *object) {
    recaller *self = (recaller *)object;
    Py_CLEAR(self->index);
    Py_CLEAR(self->admit);
    Py_CLEAR(self->absent);
    return 0;
}

static void recaller_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    recaller_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static int add_type(PyObject *module, PyType_Spec *spec, const char *name, PyObject **type) {
    *type = PyType_FromSpec(spec);
    if (!*type) return -1;
    Py_INCREF(*type);
    return PyModule_AddObject(module, name, *type);
}

static PyObject *recaller_type;

int recall_add_types(PyObject *module) {
    static PyMemberDef members[] = {
        {"handle", T_ULONGLONG, offsetof(entry, handle), READONLY, "The range."},
        {"nbytes", T_PYSSIZET, offsetof(entry, nbytes), READONLY, "Its bytes that are in use."},
        {"decode", T_OBJECT, offsetof(entry, decode), READONLY, "Makes the value of a lease."},
        {"views", T_BOOL, offsetof(entry, views), READONLY, "Whether the value refers to the range."},
        {"array", T_BOOL, offsetof(entry, array), READONLY, "Whether it is one, over the range."},
        {"expires", T_DOUBLE, offsetof(entry, expires), READONLY, "By time.monotonic."},
        {"weight", T_PYSSIZET, offsetof(entry, weight), 0, "Bytes of the value; -1: not known yet."},
        {0}};
    static PyType_Slot entry_slots[] = {
        {Py_tp_doc, "Entry(handle, nbytes, decode, views, array, expires)\n\nA value with a range of its own."},
        {Py_tp_new, entry_new},
        {Py_tp_dealloc, entry_dealloc},
        {Py_tp_members, members},
        {0, NULL}};
    /* Not collected: what decodes refers to types and shapes, never to a cache. */
    static PyType_Spec entry_spec = {.name = "vrange._hit.Entry",
                                     .basicsize = sizeof(entry),
                                     .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                                     .slots = entry_slots};
    static PyMemberDef settings[] = {
        {"front_is_full", T_BOOL, offsetof(recaller, front_is_full), 0,
         "Whether `admit` is to be asked seldom."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Recaller(index, admit, absent, account)\n\n"
                    "recaller(key): the value of the key's Entry in the dict `index`, or `absent` "
                    "where it has none or that takes a closer look."},
        {Py_tp_new, recaller_new},
        {Py_tp_dealloc, recaller_dealloc},
        {Py_tp_traverse, recaller_traverse},
        {Py_tp_clear, recaller_clear},
        {Py_tp_call, recaller_call},
        {Py_tp_members, settings},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Recaller",
        .basicsize = sizeof(recaller),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    if (add_type(module, &entry_spec, "Entry", &entry_type) < 0) return -1;
    return add_type(module, &spec, "Recaller", &recaller_type);
}

bool recall_is_recaller(PyObject *object) {
    return Py_TYPE(object) == (PyTypeObject *)recaller_type;
}
