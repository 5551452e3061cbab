/* What keys weigh; see key_weight.h.
 *
 * A key may be a dataclass, an attrs class, or any instance that defines its own hash. Its fields are found
 * with the function by which the collector visits it: that allocates nothing and runs no Python code,
 * wherever the fields are stored. An instance that is hashed by its identity, such as the `self` of a method,
 * is not measured: what it refers to is the program's own, and has nothing to do with the key. */
#include "python/cache/key_weight.h"

#define OBJECT 64
#define TUPLE 56
#define SHORT 32
#define SET 216
#define PLACE_IN_SET 48 /* of its table, for each member */
#define DEEPEST 8
#define FIELDS_MOST 256 /* and parts of fields, so that no key takes long */

typedef struct {
    Py_ssize_t bytes;
    int depth;
    int fields_left; /* 0: instances are not measured, or there were too many */
    bool has_fields, in_instance;
} weighing;

static PyObject *enum_meta; /* the type of all enumerations: their members are never the cache's own */
static hashfunc identity_hash;

static void weigh(weighing *w, PyObject *key);

static void weigh_deeper(weighing *w, PyObject *part) {
    if (w->in_instance && w->fields_left-- <= 0) return;
    w->depth++;
    weigh(w, part);
    w->depth--;
}

static void visit_parts(weighing *w, PyObject *whole, visitproc visit) {
    const traverseproc traverse = (traverseproc)PyType_GetSlot(Py_TYPE(whole), Py_tp_traverse);
    if (traverse) traverse(whole, visit, w);
}

static int weigh_member(PyObject *member, void *arg) {
    weighing *w = arg;
    w->bytes += PLACE_IN_SET;
    weigh_deeper(w, member);
    return 0;
}

/* An iterator would be an allocation, at which the collector may run Python code. */
static void weigh_set(weighing *w, PyObject *set) {
    w->bytes += SET;
    const traverseproc traverse = (traverseproc)PyType_GetSlot(&PyFrozenSet_Type, Py_tp_traverse);
    traverse(set, weigh_member, w);
}

static void weigh_tuple(weighing *w, PyObject *tuple) {
    const Py_ssize_t size = PyTuple_Size(tuple);
    w->bytes += TUPLE + size * (Py_ssize_t)sizeof tuple;
    for (Py_ssize_t i = 0; i < size; i++) weigh_deeper(w, PyTuple_GetItem(tuple, i));
}

/* Of an int of more than 64 bits. */
static Py_ssize_t bytes_of_long(PyObject *key) {
    int is_large = 0;
    PyLong_AsLongLongAndOverflow(key, &is_large);
    PyObject *bits = is_large ? PyObject_CallMethod(key, "bit_length", NULL) : NULL;
    const Py_ssize_t bytes = bits ? PyLong_AsSsize_t(bits) / 7 : 0; /* 30 bits are stored in 4 bytes */
    Py_XDECREF(bits);
    if (is_large) PyErr_Clear();
    return bytes;
}

static int weigh_field(PyObject *field, void *arg) {
    weighing *w = arg;
    if (w->fields_left <= 0 || PyType_Check(field)) return 0;
    w->bytes += (Py_ssize_t)sizeof field;
    if (PyDict_CheckExact(field) || PyList_CheckExact(field)) { /* the fields themselves, or one of them */
        w->bytes += OBJECT;
        if (w->depth == DEEPEST || w->fields_left-- <= 0) return 0;
        w->depth++;
        visit_parts(w, field, weigh_field);
        w->depth--;
        return 0;
    }
    weigh_deeper(w, field);
    return 0;
}

static bool is_measured(PyObject *key) {
    PyTypeObject *type = Py_TYPE(key);
    const unsigned long needed = Py_TPFLAGS_HEAPTYPE | Py_TPFLAGS_HAVE_GC;
    const bool is_enum = PyObject_TypeCheck((PyObject *)type, (PyTypeObject *)enum_meta);
    return (PyType_GetFlags(type) & needed) == needed && !is_enum &&
           (hashfunc)PyType_GetSlot(type, Py_tp_hash) != identity_hash;
}

static void weigh_instance(weighing *w, PyObject *key) {
    w->bytes += OBJECT;
    if (w->fields_left <= 0 || w->depth == DEEPEST || !is_measured(key)) return;
    const bool was_inside = w->in_instance;
    w->has_fields = w->in_instance = true;
    visit_parts(w, key, weigh_field);
    w->in_instance = was_inside;
}

static void weigh(weighing *w, PyObject *key) {
    if (PyUnicode_Check(key)) w->bytes += OBJECT + PyUnicode_GetLength(key);
    else if (PyBytes_Check(key)) w->bytes += SHORT + PyBytes_Size(key);
    else if (PyFloat_CheckExact(key)) w->bytes += SHORT;
    else if (PyLong_CheckExact(key)) w->bytes += SHORT + bytes_of_long(key);
    else if (w->depth == DEEPEST) w->bytes += OBJECT;
    else if (PyFrozenSet_Check(key)) weigh_set(w, key);
    else if (PyTuple_Check(key)) weigh_tuple(w, key);
    else weigh_instance(w, key);
}

Py_ssize_t key_weight(PyObject *key) {
    weighing w = {.fields_left = 0};
    weigh(&w, key);
    return w.bytes;
}

Py_ssize_t key_weight_with_fields(PyObject *key, bool *has_fields) {
    weighing w = {.fields_left = FIELDS_MOST};
    weigh(&w, key);
    *has_fields = w.has_fields;
    return w.bytes;
}

int key_weight_prepare(void) {
    PyObject *module = PyImport_ImportModule("enum");
    enum_meta = module ? PyObject_GetAttrString(module, "EnumMeta") : NULL;
    Py_XDECREF(module);
    identity_hash = (hashfunc)PyType_GetSlot(&PyBaseObject_Type, Py_tp_hash);
    return enum_meta ? 0 : -1;
}
