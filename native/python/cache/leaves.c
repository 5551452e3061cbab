/* Leaves: objects that a pickle leaves out: large strings and bytes, arrays, singletons.
 *
 * The pickler calls persistent_id for every object. For a leaf, the answer is its number among the leaves.
 * Large leaves are stored beside the pickle, directly from their own memory. Most objects are answered in C,
 * because a Python call for each object would double the time that pickling takes: Python is asked about
 * objects of the types in `kinds`, and once about each other type. */
#include "python/cache/leaves.h"

#include <stdbool.h>
#include <stddef.h>

#define TOLD_EVERY (1 << 16)

typedef struct {
    PyObject_HEAD
    PyObject *leaves; /* list */
    PyObject *numbers; /* dict, address to number */
    PyObject *watch;   /* called with each leaf, and each other object with a buffer: pickling may copy it */
    PyObject *tell;    /* called with the number of objects, every TOLD_EVERY of them */
    PyObject *kinds;   /* dict: type to whether its objects may be leaves */
    PyObject *meet;    /* called with a type that `kinds` lacks: whether its objects may be leaves */
    PyObject *is_leaf; /* called with an object of a type that may have leaves */
    Py_ssize_t least, count;
} leaf_finder;

static PyObject *number_of(leaf_finder *self, PyObject *leaf) {
    PyObject *address = PyLong_FromVoidPtr(leaf);
    if (!address) return NULL;
    PyObject *number = PyDict_GetItemWithError(self->numbers, address);
    Py_XINCREF(number);
    if (!number && !PyErr_Occurred()) {
        number = PyLong_FromSsize_t(PyList_Size(self->leaves));
        if (number && (PyList_Append(self->leaves, leaf) < 0 ||
                       PyDict_SetItem(self->numbers, address, number) < 0))
            Py_CLEAR(number);
        PyObject *watched = number ? PyObject_CallFunctionObjArgs(self->watch, leaf, NULL) : NULL;
        if (!watched) Py_CLEAR(number);
        Py_XDECREF(watched);
    }
    Py_DECREF(address);
    return number;
}

/* 1, 0, or -1 with an error set. */
static int is_true(PyObject *answer) {
    const int truth = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return truth;
}

static bool is_common(PyObject *asked) {
    return PyLong_CheckExact(asked) || PyFloat_CheckExact(asked) || asked == Py_None ||
           PyTuple_CheckExact(asked) || PyList_CheckExact(asked) || PyDict_CheckExact(asked) ||
           PyType_CheckExact(asked) || PyBool_Check(asked);
}

static int may_be_leaf(leaf_finder *self, PyObject *asked) {
    PyObject *kind = (PyObject *)Py_TYPE(asked), *known = PyDict_GetItemWithError(self->kinds, kind);
    if (known) return PyObject_IsTrue(known);
    const int may_be = PyErr_Occurred() ? -1 : is_true(PyObject_CallFunctionObjArgs(self->meet, kind, NULL));
    if (may_be >= 0 && PyDict_SetItem(self->kinds, kind, may_be ? Py_True : Py_False) < 0) return -1;
    return may_be;
}

static PyObject *leaves_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    leaf_finder *self = (leaf_finder *)object;
    PyObject *asked;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O", &asked)) return NULL;
    if (++self->count % TOLD_EVERY == 0) {
        PyObject *told = PyObject_CallFunction(self->tell, "n", self->count);
        Py_XDECREF(told);
        if (!told) return NULL;
    }
    if (PyUnicode_CheckExact(asked)) {
        if (PyUnicode_GetLength(asked) >= self->least) return number_of(self, asked);
    } else if (PyBytes_CheckExact(asked)) {
        if (PyBytes_Size(asked) >= self->least) return number_of(self, asked);
    } else if (!is_common(asked)) {
        int is_one = may_be_leaf(self, asked);
        if (is_one > 0) is_one = is_true(PyObject_CallFunctionObjArgs(self->is_leaf, asked, NULL));
        if (is_one) return is_one < 0 ? NULL : number_of(self, asked);
        if (PyObject_CheckBuffer(asked)) return PyObject_CallFunctionObjArgs(self->watch, asked, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *leaves_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *leaves, *watch, *tell, *kinds, *meet, *is_leaf;
    Py_ssize_t least;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O!OOnO!OO", &PyList_Type, &leaves, &watch, &tell, &least, &PyDict_Type,
                          &kinds, &meet, &is_leaf))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    leaf_finder *self = (leaf_finder *)allocate(type, 0);
    if (!self) return NULL;
    self->leaves = Py_NewRef(leaves);
    self->watch = Py_NewRef(watch);
    self->tell = Py_NewRef(tell);
    self->kinds = Py_NewRef(kinds);
    self->meet = Py_NewRef(meet);
    self->is_leaf = Py_NewRef(is_leaf);
    self->least = least;
    self->numbers = PyDict_New();
    if (!self->numbers) Py_CLEAR(self);
    return (PyObject *)self;
}

static const size_t references[] = {offsetof(leaf_finder, leaves), offsetof(leaf_finder, numbers),
                                    offsetof(leaf_finder, watch), offsetof(leaf_finder, tell),
                                    offsetof(leaf_finder, kinds), offsetof(leaf_finder, meet),
                                    offsetof(leaf_finder, is_leaf), 0};

static int leaves_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int leaves_clear(PyObject *object) { return clear_references(object, references); }

static void leaves_dealloc(PyObject *object) { free_collected(object, references); }

int leaves_add_type(PyObject *module) {
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Leaves(leaves, watch, tell, least, kinds, meet, is_leaf)\n\n"
                    "A pickler's persistent_id: str and bytes of at least `least` go to the list `leaves`, and "
                    "so does each object for which is_leaf(object) is true. is_leaf is called for objects of "
                    "the types that `kinds` maps to True, and meet(type) once for each type that `kinds` "
                    "lacks. watch(object) is called for each leaf, and for each other object that has a "
                    "buffer; tell(count) every 65,536 objects."},
        {Py_tp_new, leaves_new},
        {Py_tp_dealloc, leaves_dealloc},
        {Py_tp_traverse, leaves_traverse},
        {Py_tp_clear, leaves_clear},
        {Py_tp_call, leaves_call},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Leaves",
        .basicsize = sizeof(leaf_finder),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    return add_type(module, &spec) ? 0 : -1;
}
