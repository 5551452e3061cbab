/* What is known of a key; see known.h. */
#include "python/cache/known.h"

#include <stddef.h>
#include <structmember.h>

static PyTypeObject *known_type;

bool is_known(PyObject *object) { return PyObject_TypeCheck(object, known_type); }

static PyObject *known_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *form, *digest;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Known(form, digest)");
    if (!PyArg_ParseTuple(args, "SS", &form, &digest)) return NULL;
    if (PyBytes_Size(digest) != VRANGE_DIGEST_BYTES)
        return PyErr_Format(PyExc_ValueError, "a digest has %d bytes", VRANGE_DIGEST_BYTES);
    known_key *self = (known_key *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    self->form = Py_NewRef(form);
    self->digest = Py_NewRef(digest);
    self->near_at = 1;
    return (PyObject *)self;
}

static void known_dealloc(PyObject *object) {
    known_key *self = (known_key *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_CLEAR(self->form);
    Py_CLEAR(self->digest);
    Py_CLEAR(self->stamp);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *known_forget(PyObject *object, PyObject *unused) {
    (void)unused;
    PyObject *stamp = ((known_key *)object)->stamp;
    ((known_key *)object)->stamp = NULL;
    return stamp ? stamp : Py_NewRef(Py_None);
}

int known_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"forget", known_forget, METH_NOARGS,
         "forget(): this process has no value of the key any more; the stamp that it had, or None."},
        {0}};
    static PyMemberDef members[] = {
        {"form", T_OBJECT_EX, offsetof(known_key, form), READONLY, "the key as bytes"},
        {"digest", T_OBJECT_EX, offsetof(known_key, digest), READONLY, "of the form"},
        {"stamp", T_OBJECT, offsetof(known_key, stamp), READONLY,
         "of the record whose value this process has, or None"},
        {"reads", T_INT, offsetof(known_key, reads), 0, "how often the value was read, from elsewhere or here"},
        {"near_at", T_INT, offsetof(known_key, near_at), 0, "so many reads make the value worth a copy here"},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Known(form, digest): what this process knows of a key of a shared cache."},
        {Py_tp_new, known_new},
        {Py_tp_dealloc, known_dealloc},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Known",
                               .basicsize = sizeof(known_key),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    known_type = add_type(module, &spec);
    return known_type ? 0 : -1;
}
