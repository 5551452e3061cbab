/* Form, and the bytes of a value; see form.h. */
#include "python/cache/form.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

#include "python/cache/ndarray.h"
#include "python/lease.h"

typedef struct {
    PyObject_HEAD
    PyObject *parts; /* a tuple of buffers */
    PyObject *decode;
    PyObject *write; /* writes nbytes into a lease, instead of the parts; or NULL */
    PyObject *room;  /* kept as long as the form */
    Py_ssize_t nbytes;
    char refers, is_view, is_private;
} form_object;

static PyTypeObject *form_type;

static PyObject *form_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"parts", "decode", "refers", "is_view", "nbytes",
                            "write", "room", "is_private", NULL};
    PyObject *parts, *decode, *write = NULL, *room = NULL;
    int refers = 0, is_view = 0, is_private = 0;
    Py_ssize_t nbytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O|ppnOOp", names, &PyTuple_Type, &parts, &decode,
                                     &refers, &is_view, &nbytes, &write, &room, &is_private))
        return NULL;
    form_object *self = PyObject_New(form_object, type);
    if (!self) return NULL;
    self->parts = Py_NewRef(parts);
    self->decode = Py_NewRef(decode);
    self->write = Py_XNewRef(write == Py_None ? NULL : write);
    self->room = Py_XNewRef(room);
    self->nbytes = nbytes;
    self->refers = (char)refers;
    self->is_view = (char)(is_view || is_viewer(decode));
    self->is_private = (char)is_private;
    return (PyObject *)self;
}

static void form_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_DECREF(((form_object *)object)->parts);
    Py_DECREF(((form_object *)object)->decode);
    Py_XDECREF(((form_object *)object)->write);
    Py_XDECREF(((form_object *)object)->room);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* ---- the bytes of a value -------------------------------------------------------------------- */

/* A str that is all ASCII gives its own bytes: encoding it would copy them. */
static int part_bytes(PyObject *part, Py_buffer *view) {
    if (!PyUnicode_Check(part)) return PyObject_GetBuffer(part, view, PyBUF_SIMPLE);
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(part, &bytes);
    return text ? PyBuffer_FillInfo(view, part, (void *)(uintptr_t)text, bytes, 1, PyBUF_SIMPLE) : -1;
}

void coded_release(coded *c) {
    while (c->view_count > 0) PyBuffer_Release(&c->views[--c->view_count]);
    if (c->parts != &c->one) PyMem_Free(c->parts);
    PyMem_Free(c->views);
    Py_XDECREF(c->form);
    Py_XDECREF(c->holder);
}

static int take_parts(coded *out, PyObject *parts) {
    const Py_ssize_t count = PyTuple_Size(parts);
    out->views = PyMem_Calloc((size_t)count + 1, sizeof *out->views);
    out->parts = PyMem_Calloc((size_t)count + 1, sizeof *out->parts);
    if (!out->views || !out->parts) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_buffer *view = &out->views[i];
        if (part_bytes(PyTuple_GetItem(parts, i), view) < 0) return -1;
        out->view_count++;
        out->parts[i] = (vrange_part){view->buf, (size_t)view->len};
        out->bytes += (size_t)view->len;
    }
    out->part_count = (size_t)count;
    return 0;
}

void coded_put_together(coded *out) {
    char *at = out->small;
    out->is_small = out->bytes <= SMALL_BYTES_MOST;
    if (!out->is_small) return;
    for (size_t i = 0; i < out->part_count; i++) {
        memcpy(at, out->parts[i].data, out->parts[i].bytes);
        at += out->parts[i].bytes;
    }
}

int coded_by_form(coded *out, PyObject *object) {
    if (Py_TYPE(object) != form_type) {
        PyErr_SetString(PyExc_TypeError, "encode must return a Form");
        return -1;
    }
    form_object *form = (form_object *)object;
    out->holder = Py_NewRef(object);
    out->form = Py_NewRef(form->decode);
    out->refers = form->refers;
    out->is_view = form->is_view;
    out->is_private = form->is_private;
    if (take_parts(out, form->parts) < 0) return -1;
    out->write = form->write;
    if (form->write) {
        out->bytes = (size_t)form->nbytes;
        return 0;
    }
    coded_put_together(out);
    return 0;
}

/* ---- for Python ------------------------------------------------------------------------------ */

PyObject *form_write(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *lease, *part;
    Py_ssize_t at, from, most, bytes;
    if (!PyArg_ParseTuple(args, "OnOnn", &lease, &at, &part, &from, &most)) return NULL;
    char *to = lease_memory(lease, &bytes);
    Py_buffer view;
    if (!to || part_bytes(part, &view) < 0) return NULL;
    Py_ssize_t some = view.len - from < most ? view.len - from : most;
    const bool fits = from >= 0 && some >= 0 && at >= 0 && at <= bytes - some;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        memcpy(to + at, (const char *)view.buf + from, (size_t)some);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    if (!fits) return PyErr_Format(PyExc_ValueError, "the part does not fit into the lease");
    return PyLong_FromSsize_t(some);
}

int form_add_type(PyObject *module) {
    static PyMemberDef members[] = {
        {"parts", T_OBJECT, offsetof(form_object, parts), READONLY, "Buffers, stored one after another."},
        {"decode", T_OBJECT, offsetof(form_object, decode), READONLY,
         "A Viewer, or a callable: makes the value from a buffer of at least the parts' bytes."},
        {"is_private", T_BOOL, offsetof(form_object, is_private), READONLY,
         "Whether each caller gets an object of its own. Such a value is never hot."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Form(parts, decode, refers=False, is_view=False, nbytes=0, write=None, room=None, "
                    "is_private=False)\n\n"
                    "How a value is stored and decoded. Without parts, write(lease) writes its `nbytes`. "
                    "`room` lives as long as the form."},
        {Py_tp_new, form_new},
        {Py_tp_dealloc, form_dealloc},
        {Py_tp_members, members},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Form",
                               .basicsize = sizeof(form_object),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    form_type = add_type(module, &spec);
    return form_type ? 0 : -1;
}
