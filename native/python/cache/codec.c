/* The codec: values to bytes, and back.
 *
 * str, bytes, int, float, bool, None and tuples of these are coded here; ndarrays lie in memory as they
 * are, and a Viewer makes them again (ndarray.c). Every other type is Python's, and so is what is so large
 * that there has to be room for it first: `encode` returns a Form, which has the parts to be stored and the
 * callable that makes the value of them again. A small value is
 * decoded from a copy of its bytes, because decoding may run Python code, which may give its slot to
 * another value. */
#include "python/cache/core.h"

#include <stddef.h>
#include <structmember.h>

#include "pressure/room.h"

enum { NONE = 'N', FALSE_ = 'F', TRUE_ = 'T', INT = 'i', FLOAT = 'f', BYTES = 'b', STR = 's', ODD_STR = 'o', TUPLE = 't' };

#define NESTED_MOST 16

typedef struct {
    char *at, *end;
} writer;

/* ---- writing: 1, 0 where it is not for us, -1 with an error set ------------------------------- */

static int put(writer *w, char kind, const void *data, size_t bytes) {
    if ((size_t)(w->end - w->at) < bytes + 1) return 0;
    *w->at++ = kind;
    memcpy(w->at, data, bytes);
    w->at += bytes;
    return 1;
}

/* With its length before it. */
static int put_counted(writer *w, char kind, const char *data, Py_ssize_t bytes) {
    const uint16_t length = (uint16_t)bytes;
    if (bytes > SMALL_BYTES_MOST || !put(w, kind, &length, sizeof length)) return 0;
    if (w->end - w->at < bytes) return 0;
    memcpy(w->at, data, (size_t)bytes);
    w->at += bytes;
    return 1;
}

static int put_int(writer *w, PyObject *value) {
    int overflow;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (number == -1 && PyErr_Occurred()) return -1;
    return overflow ? 0 : put(w, INT, &number, sizeof number);
}

static int put_text(writer *w, PyObject *value) {
    Py_ssize_t bytes;
    if (PyUnicode_GetLength(value) > SMALL_BYTES_MOST) return 0;
    const char *data = PyUnicode_AsUTF8AndSize(value, &bytes);
    if (data) return put_counted(w, STR, data, bytes);
    PyErr_Clear(); /* it has surrogates */
    PyObject *encoded = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass");
    if (!encoded) return -1;
    const int done = put_counted(w, ODD_STR, PyBytes_AsString(encoded), PyBytes_Size(encoded));
    Py_DECREF(encoded);
    return done;
}

static int put_value(writer *w, PyObject *value, int depth) {
    if (value == Py_None) return put(w, NONE, "", 0);
    if (value == Py_True) return put(w, TRUE_, "", 0);
    if (value == Py_False) return put(w, FALSE_, "", 0);
    if (PyBytes_CheckExact(value))
        return put_counted(w, BYTES, PyBytes_AsString(value), PyBytes_Size(value));
    if (PyUnicode_CheckExact(value)) return put_text(w, value);
    if (PyLong_CheckExact(value)) return put_int(w, value);
    if (PyFloat_CheckExact(value)) {
        const double number = PyFloat_AsDouble(value);
        return put(w, FLOAT, &number, sizeof number);
    }
    if (!PyTuple_CheckExact(value) || depth == NESTED_MOST) return 0;
    const Py_ssize_t size = PyTuple_Size(value);
    const uint16_t count = (uint16_t)size;
    if (size > SMALL_BYTES_MOST) return 0;
    int done = put(w, TUPLE, &count, sizeof count);
    for (Py_ssize_t i = 0; done > 0 && i < size; i++)
        done = put_value(w, PyTuple_GetItem(value, i), depth + 1);
    return done;
}

/* ---- reading: what was written here ----------------------------------------------------------- */

static uint16_t take_count(const char **at) {
    uint16_t count;
    memcpy(&count, *at, sizeof count);
    *at += sizeof count;
    return count;
}

static PyObject *take_value(const char **at) {
    const char kind = *(*at)++;
    const char *data;
    uint16_t count;
    long long number;
    double real;
    switch (kind) {
    case NONE: return Py_NewRef(Py_None);
    case TRUE_: return Py_NewRef(Py_True);
    case FALSE_: return Py_NewRef(Py_False);
    case INT:
        memcpy(&number, *at, sizeof number);
        *at += sizeof number;
        return PyLong_FromLongLong(number);
    case FLOAT:
        memcpy(&real, *at, sizeof real);
        *at += sizeof real;
        return PyFloat_FromDouble(real);
    case BYTES:
    case STR:
    case ODD_STR:
        count = take_count(at);
        data = *at;
        *at += count;
        if (kind == STR) return PyUnicode_FromStringAndSize(data, count);
        if (kind == BYTES) return PyBytes_FromStringAndSize(data, count);
        return PyUnicode_Decode(data, count, "utf-8", "surrogatepass");
    }
    count = take_count(at);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++) {
        PyObject *item = take_value(at);
        if (item) PyTuple_SetItem(tuple, i, item);
        else Py_CLEAR(tuple);
    }
    return tuple;
}

PyObject *decode_small(PyObject *form, const char *data, size_t bytes) {
    if (!form) return take_value(&data);
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes);
    if (!copy) return NULL;
    PyObject *value = is_viewer(form) ? view_bytes(form, copy)
                                      : PyObject_CallFunctionObjArgs(form, copy, NULL);
    Py_DECREF(copy);
    return value;
}

PyObject *decode_range(PyObject *form, bool is_text, PyObject *lease) {
    if (form) {
        if (is_viewer(form)) return view_lease(form, lease);
        return PyObject_CallFunctionObjArgs(form, lease, NULL);
    }
    Py_ssize_t bytes;
    const char *data = lease_memory(lease, &bytes);
    if (!data) return NULL;
    if (!is_text) return PyBytes_FromStringAndSize(data, bytes);
    return PyUnicode_Decode(data, bytes, "utf-8", "surrogatepass");
}

/* Of a string that is all ASCII, its own bytes: encoding it would be a copy. */
static int part_bytes(PyObject *part, Py_buffer *view) {
    if (!PyUnicode_Check(part)) return PyObject_GetBuffer(part, view, PyBUF_SIMPLE);
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(part, &bytes);
    return text ? PyBuffer_FillInfo(view, part, (void *)(uintptr_t)text, bytes, 1, PyBUF_SIMPLE) : -1;
}

PyObject *codec_write(PyObject *module, PyObject *args) {
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

/* ---- what Python's codec gives ---------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *parts; /* a tuple of buffers */
    PyObject *decode;
    PyObject *write; /* writes nbytes into a lease, instead of the parts; or NULL */
    PyObject *room;  /* kept as long as the form */
    Py_ssize_t nbytes;
    char refers, is_view;
} form_object;

static PyTypeObject *form_type;

static PyObject *form_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"parts", "decode", "refers", "is_view", "nbytes", "write", "room", NULL};
    PyObject *parts, *decode, *write = NULL, *room = NULL;
    int refers = 0, is_view = 0;
    Py_ssize_t nbytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O|ppnOO", names, &PyTuple_Type, &parts, &decode,
                                     &refers, &is_view, &nbytes, &write, &room))
        return NULL;
    form_object *self = PyObject_New(form_object, type);
    if (!self) return NULL;
    self->parts = Py_NewRef(parts);
    self->decode = Py_NewRef(decode);
    self->write = Py_XNewRef(write);
    self->room = Py_XNewRef(room);
    self->nbytes = nbytes;
    self->refers = (char)refers;
    self->is_view = (char)(is_view || is_viewer(decode));
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

/* A small value's parts, one after another. */
static void put_together(coded *out) {
    char *at = out->small;
    out->is_small = out->bytes <= SMALL_BYTES_MOST;
    if (!out->is_small) return;
    for (size_t i = 0; i < out->part_count; i++) {
        memcpy(at, out->parts[i].data, out->parts[i].bytes);
        at += out->parts[i].bytes;
    }
}

static int code_by_python(cache_core *self, PyObject *value, coded *out) {
    PyObject *object = PyObject_CallFunction(self->encode, "On", value, self->bytes_most);
    if (!object) return -1;
    if (Py_TYPE(object) != form_type) {
        PyErr_SetString(PyExc_TypeError, "encode must return a Form");
        Py_DECREF(object);
        return -1;
    }
    form_object *form = (form_object *)object;
    out->holder = object;
    out->form = Py_NewRef(form->decode);
    out->refers = form->refers;
    out->is_view = form->is_view;
    if (take_parts(out, form->parts) < 0) return -1;
    out->write = form->write;
    if (form->write) {
        out->bytes = (size_t)form->nbytes;
        return 0;
    }
    put_together(out);
    return 0;
}

/* ---- coding ----------------------------------------------------------------------------------- */

static void code_range(coded *out, bool is_text, const char *data, Py_ssize_t bytes) {
    out->is_text = is_text;
    out->one = (vrange_part){data, (size_t)bytes};
    out->part_count = 1;
    out->bytes = (size_t)bytes;
}

/* A large str whose characters are its UTF-8 is stored without a copy. */
static int code_text(PyObject *value, coded *out) {
    PyObject *is_ascii = PyObject_CallMethod(value, "isascii", NULL);
    if (!is_ascii) return -1;
    Py_ssize_t bytes;
    const char *data = NULL;
    if (is_ascii == Py_True) {
        data = PyUnicode_AsUTF8AndSize(value, &bytes);
        out->holder = Py_NewRef(value);
    } else {
        out->holder = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass");
        if (out->holder) {
            data = PyBytes_AsString(out->holder);
            bytes = PyBytes_Size(out->holder);
        }
    }
    Py_DECREF(is_ascii);
    if (!data) return -1;
    code_range(out, true, data, bytes);
    return 0;
}

static int code_array(PyObject *value, PyObject *its_viewer, coded *out) {
    out->form = Py_NewRef(its_viewer);
    out->holder = Py_NewRef(value);
    out->one = array_content(value, its_viewer);
    out->part_count = 1;
    out->bytes = out->one.bytes;
    out->refers = out->is_view = true;
    put_together(out);
    return 0;
}

int code_value(cache_core *self, PyObject *value, coded *out) {
    memset(out, 0, offsetof(coded, small));
    out->parts = &out->one;
    writer w = {out->small, out->small + sizeof out->small};
    const int written = put_value(&w, value, 0);
    if (written) {
        out->bytes = (size_t)(w.at - out->small);
        out->is_small = true;
        return written < 0 ? -1 : 0;
    }
    PyObject *its_viewer = viewer_of_array(value);
    if (its_viewer && array_content(value, its_viewer).bytes < ROOM_BYTES) return code_array(value, its_viewer, out);
    if (PyBytes_CheckExact(value) && PyBytes_Size(value) < (Py_ssize_t)ROOM_BYTES) {
        out->holder = Py_NewRef(value);
        code_range(out, false, PyBytes_AsString(value), PyBytes_Size(value));
        return 0;
    }
    if (PyUnicode_CheckExact(value) && PyUnicode_GetLength(value) < (Py_ssize_t)ROOM_BYTES)
        return code_text(value, out);
    return code_by_python(self, value, out);
}

int form_add_type(PyObject *module) {
    static PyMemberDef members[] = {
        {"parts", T_OBJECT, offsetof(form_object, parts), READONLY, "Buffers, stored one after another."},
        {"decode", T_OBJECT, offsetof(form_object, decode), READONLY,
         "A Viewer, or called with a buffer of at least the parts' bytes: makes the value."},
        {"refers", T_BOOL, offsetof(form_object, refers), READONLY,
         "Whether the value refers to the buffer's memory."},
        {"is_view", T_BOOL, offsetof(form_object, is_view), READONLY,
         "Whether it is a mere view, and so what is returned at the first time, too."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Form(parts, decode, refers=False, is_view=False, nbytes=0, write=None, room=None)\n\n"
                    "How a value is stored and made again. write(lease) writes `nbytes` where there are no "
                    "parts; `room` is kept as long as the form."},
        {Py_tp_new, form_new},
        {Py_tp_dealloc, form_dealloc},
        {Py_tp_members, members},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Form",
                               .basicsize = sizeof(form_object),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    if (PyModule_AddIntConstant(module, "SMALL_BYTES_MOST", SMALL_BYTES_MOST) < 0) return -1;
    form_type = add_type(module, &spec);
    return form_type ? 0 : -1;
}
