/* The codec; see codec.h.
 *
 * str, bytes, int, float, bool, None and tuples of these are coded natively (small_codec.c). ndarrays are
 * stored as they lie in memory, and a Viewer makes an array over the bytes (ndarray.c). Python codes every
 * other type, and every value so large that it needs a reservation first (ROOM_BYTES): `encode` returns a
 * Form with the parts to be stored and the callable that decodes them. A small value is decoded from a copy
 * of its bytes, because decoding may run Python code, which may give its slot to another value. */
#include "python/cache/codec.h"

#include <stddef.h>
#include <string.h>

#include "pressure/room_for_copy.h"
#include "python/cache/ndarray.h"
#include "python/cache/small_codec.h"
#include "python/lease.h"

/* ---- decoding -------------------------------------------------------------------------------- */

PyObject *decode_small(PyObject *form, const char *data, size_t bytes) {
    if (!form) return small_read(data);
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes);
    if (!copy) return NULL;
    PyObject *value = decode_copy(form, false, copy);
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

PyObject *decode_copy(PyObject *form, bool is_text, PyObject *copy) {
    if (form && is_viewer(form)) return view_bytes(form, copy);
    if (form) return PyObject_CallFunctionObjArgs(form, copy, NULL);
    if (!is_text) return Py_NewRef(copy);
    return PyUnicode_Decode(PyBytes_AsString(copy), PyBytes_Size(copy), "utf-8", "surrogatepass");
}

PyObject *core_answer_unstored(const cache_core *self, PyObject *value) {
    const bool has_no_arrays = !value || PyUnicode_CheckExact(value) || PyBytes_CheckExact(value) ||
                               PyLong_CheckExact(value) || PyFloat_CheckExact(value) || value == Py_None;
    if (has_no_arrays) return value;
    PyObject *answer = PyObject_CallFunctionObjArgs(self->as_answered, value, NULL);
    Py_DECREF(value);
    return answer;
}

/* ---- coding ---------------------------------------------------------------------------------- */

static void code_range(coded *out, bool is_text, const char *data, Py_ssize_t bytes) {
    out->is_text = is_text;
    out->one = (vrange_part){data, (size_t)bytes};
    out->part_count = 1;
    out->bytes = (size_t)bytes;
}

/* The UTF-8 of a str that is all ASCII is the str itself: it is stored without a copy. */
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
    coded_put_together(out);
    return 0;
}

static int code_by_python(cache_core *self, PyObject *value, coded *out) {
    PyObject *form = PyObject_CallFunction(self->encode, "On", value, self->bytes_most);
    const int result = !form ? CODING_FAILED : form == Py_None ? NOT_KEPT
                                                               : coded_by_form(out, form);
    Py_XDECREF(form);
    return result;
}

int code_value(cache_core *self, PyObject *value, coded *out) {
    memset(out, 0, offsetof(coded, small));
    out->parts = &out->one;
    const Py_ssize_t written = small_write(value, out->small, sizeof out->small);
    if (written) {
        out->bytes = (size_t)written;
        out->is_small = true;
        return written < 0 ? -1 : 0;
    }
    PyObject *its_viewer = self->copies ? NULL : viewer_of_array(value);
    if (its_viewer && array_content(value, its_viewer).bytes < ROOM_BYTES)
        return code_array(value, its_viewer, out);
    if (PyBytes_CheckExact(value) && PyBytes_Size(value) < (Py_ssize_t)ROOM_BYTES) {
        out->holder = Py_NewRef(value);
        code_range(out, false, PyBytes_AsString(value), PyBytes_Size(value));
        return 0;
    }
    if (PyUnicode_CheckExact(value) && PyUnicode_GetLength(value) < (Py_ssize_t)ROOM_BYTES)
        return code_text(value, out);
    return code_by_python(self, value, out);
}
