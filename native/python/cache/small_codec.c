/* The native code of small values; see small_codec.h.
 *
 * A value is a letter for its kind and its content. A str, bytes or tuple has its length before the content.
 * The same process reads it again, so numbers are stored as they are in memory. */
#include "python/cache/small_codec.h"

#include <stdint.h>
#include <string.h>

enum {
    NONE = 'N',
    FALSE_ = 'F',
    TRUE_ = 'T',
    INT = 'i',
    FLOAT = 'f',
    BYTES = 'b',
    STR = 's',
    ODD_STR = 'o',
    TUPLE = 't',
};

#define NESTED_MOST 16

typedef struct {
    char *at, *end;
} writer;

/* ---- writing: 1; 0: too large or of another type; -1 with an error set ----------------------- */

static int put(writer *w, char kind, const void *data, size_t bytes) {
    if ((size_t)(w->end - w->at) < bytes + 1) return 0;
    *w->at++ = kind;
    memcpy(w->at, data, bytes);
    w->at += bytes;
    return 1;
}

/* Writes the length first. */
static int put_counted(writer *w, char kind, const char *data, Py_ssize_t bytes) {
    const uint16_t length = (uint16_t)bytes;
    if (bytes > w->end - w->at || !put(w, kind, &length, sizeof length)) return 0;
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
    if (PyUnicode_GetLength(value) > w->end - w->at) return 0;
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
    if (size > w->end - w->at) return 0;
    int done = put(w, TUPLE, &count, sizeof count);
    for (Py_ssize_t i = 0; done > 0 && i < size; i++)
        done = put_value(w, PyTuple_GetItem(value, i), depth + 1);
    return done;
}

/* ---- reading --------------------------------------------------------------------------------- */

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

Py_ssize_t small_write(PyObject *value, char *to, size_t room) {
    writer w = {to, to + room};
    const int written = put_value(&w, value, 0);
    return written > 0 ? w.at - to : written;
}

PyObject *small_read(const char *data) { return take_value(&data); }
