/* The hot front: a callable that answers from values the cache itself holds.
 *
 * A decorated function is called for its hits, so a hit must cost what functools.lru_cache costs.
 * A Python wrapper with *args costs twice that before it has looked anything up; hence this type,
 * which makes the key, looks into one dict and then into the ranges (lookup.c), and computes what is
 * nowhere (compute.c). Python is called only for what these leave. Which values are in the dict, and for
 * how many bytes, is the cache's business (hot.py). */
#include "python/hit.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    PyObject *values;       /* dict, key to value */
    PyObject *recaller;     /* asked next (lookup.c); NULL: nobody */
    PyObject *leader;       /* then (compute.c), with the function; NULL: nobody */
    PyObject *function;
    PyObject *slowly;       /* last, with key, args, kwargs */
    PyObject *key_function; /* called with the arguments; NULL: the arguments are the key */
    int typed;
} hot_function;

static PyObject *keyword_mark; /* separates positional from keyword arguments in a key */
static PyObject *method_type;

static PyObject *make_key(hot_function *self, PyObject *args, PyObject *kwargs) {
    if (self->key_function) return PyObject_Call(self->key_function, args, kwargs);
    const Py_ssize_t positional = PyTuple_Size(args);
    const Py_ssize_t named = kwargs ? PyDict_Size(kwargs) : 0;
    if (!self->typed && !named) {
        if (positional == 1) {
            /* A string or an int equals nothing but its like, so it can stand for its tuple. */
            PyObject *only = PyTuple_GetItem(args, 0);
            if (PyUnicode_CheckExact(only) || PyLong_CheckExact(only)) return Py_NewRef(only);
        }
        return Py_NewRef(args);
    }
    Py_ssize_t size = positional + (named ? 1 + 2 * named : 0);
    if (self->typed) size += positional + named;
    PyObject *key = PyTuple_New(size);
    if (!key) return NULL;
    Py_ssize_t at = 0, place = 0;
    PyObject *name, *value;
    for (Py_ssize_t i = 0; i < positional; i++)
        PyTuple_SetItem(key, at++, Py_NewRef(PyTuple_GetItem(args, i)));
    if (named) {
        PyTuple_SetItem(key, at++, Py_NewRef(keyword_mark));
        while (PyDict_Next(kwargs, &place, &name, &value)) {
            PyTuple_SetItem(key, at++, Py_NewRef(name));
            PyTuple_SetItem(key, at++, Py_NewRef(value));
        }
    }
    if (self->typed) {
        for (Py_ssize_t i = 0; i < positional; i++)
            PyTuple_SetItem(key, at++, Py_NewRef((PyObject *)Py_TYPE(PyTuple_GetItem(args, i))));
        for (place = 0; named && PyDict_Next(kwargs, &place, &name, &value);)
            PyTuple_SetItem(key, at++, Py_NewRef((PyObject *)Py_TYPE(value)));
    }
    return key;
}

static PyObject *hot_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    hot_function *self = (hot_function *)object;
    PyObject *key = make_key(self, args, kwargs);
    if (!key) return NULL;
    PyObject *value = PyDict_GetItemWithError(self->values, key);
    if (value) {
        Py_INCREF(value);
        if (self->recaller && recall_count_hot(self->recaller, key) < 0) Py_CLEAR(value);
    } else if (!PyErr_Occurred()) {
        if (self->recaller) value = recall(self->recaller, key);
        if (!value && !PyErr_Occurred() && self->leader)
            value = lead(self->leader, key, (call_of){self->function, args, kwargs});
        if (!value && !PyErr_Occurred())
            value = PyObject_CallFunctionObjArgs(self->slowly, key, args, kwargs ? kwargs : Py_None, NULL);
    }
    Py_DECREF(key);
    return value;
}

static PyObject *hot_make_key(PyObject *object, PyObject *arguments) {
    PyObject *args, *kwargs;
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyTuple_Type, &args, &PyDict_Type, &kwargs))
        return NULL;
    return make_key((hot_function *)object, args, kwargs);
}

static PyObject *hot_descr_get(PyObject *object, PyObject *instance, PyObject *owner) {
    (void)owner;
    if (!instance || instance == Py_None) return Py_NewRef(object);
    return PyObject_CallFunctionObjArgs(method_type, object, instance, NULL);
}

static PyObject *hot_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"values", "recaller", "leader", "function", "slowly", "key", "typed", NULL};
    PyObject *values, *recaller, *leader, *function, *slowly, *key = Py_None;
    int typed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OOOO|Op", names, &PyDict_Type, &values,
                                     &recaller, &leader, &function, &slowly, &key, &typed))
        return NULL;
    if (recaller != Py_None && !is_recaller(recaller))
        return PyErr_Format(PyExc_TypeError, "recaller must be a Recaller or None");
    if (leader != Py_None && !is_leader(leader))
        return PyErr_Format(PyExc_TypeError, "leader must be a Leader or None");
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    hot_function *self = (hot_function *)allocate(type, 0);
    if (!self) return NULL;
    self->values = Py_NewRef(values);
    self->recaller = recaller == Py_None ? NULL : Py_NewRef(recaller);
    self->leader = leader == Py_None ? NULL : Py_NewRef(leader);
    self->function = Py_NewRef(function);
    self->slowly = Py_NewRef(slowly);
    self->key_function = key == Py_None ? NULL : Py_NewRef(key);
    self->typed = typed;
    return (PyObject *)self;
}

static const size_t references[] = {
    offsetof(hot_function, values), offsetof(hot_function, recaller),
    offsetof(hot_function, leader), offsetof(hot_function, function),
    offsetof(hot_function, slowly), offsetof(hot_function, key_function), 0};

static int hot_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int hot_clear(PyObject *object) {
    return clear_references(object, references);
}

static void hot_dealloc(PyObject *object) { free_collected(object, references); }

int hot_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"make_key", hot_make_key, METH_VARARGS,
         "make_key(args, kwargs): the key under which a call is cached."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "HotFunction(values, recaller, leader, function, slowly, key=None, typed=False)\n\n"
                    "Calls answer from the dict `values`, from the recaller, by what the leader has "
                    "the function compute, or by slowly(key, args, kwargs)."},
        {Py_tp_new, hot_new},
        {Py_tp_dealloc, hot_dealloc},
        {Py_tp_traverse, hot_traverse},
        {Py_tp_clear, hot_clear},
        {Py_tp_call, hot_call},
        {Py_tp_descr_get, hot_descr_get},
        {Py_tp_methods, methods},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.HotFunction",
        .basicsize = sizeof(hot_function),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
        .slots = slots};
    PyObject *types = PyImport_ImportModule("types");
    method_type = types ? PyObject_GetAttrString(types, "MethodType") : NULL;
    Py_XDECREF(types);
    keyword_mark = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    return method_type && keyword_mark && add_type(module, &spec) ? 0 : -1;
}
