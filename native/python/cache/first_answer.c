/* The first answer; see first_answer.h.
 *
 * It is decoded from the coded bytes, as later answers are. So all answers agree on what is read-only, which
 * objects are shared, and which attributes pickling drops. A value that can't be decoded is found here,
 * before it is stored. */
#include "python/cache/first_answer.h"

#include "python/cache/codec.h"

static PyObject *decode(const coded *c, PyObject *lease) {
    return lease ? decode_range(c->form, c->is_text, lease) : decode_small(c->form, c->small, c->bytes);
}

/* Whether decoding the value fails a second time. If not, a signal handler raised the error. */
static bool is_unreadable(const coded *c, PyObject *lease) {
    PyObject *value = decode(c, lease);
    const bool has_failed = !value && PyErr_ExceptionMatches(PyExc_Exception);
    Py_XDECREF(value);
    PyErr_Clear();
    return has_failed;
}

static bool may_be_the_values(void) {
    return PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError) &&
           !PyErr_ExceptionMatches(PyExc_RecursionError);
}

static int give_up(cache_core *self, const coded *c, PyObject *lease) {
    if (!may_be_the_values()) return FIRST_FAILED;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (!is_unreadable(c, lease)) {
        PyErr_Restore(type, error, traceback);
        return FIRST_FAILED;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(self->give_up, Py_None, error, NULL);
    Py_XDECREF(done);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return done ? FIRST_IS_UNREADABLE : FIRST_FAILED;
}

int first_answer(cache_core *self, const coded *c, PyObject *lease, PyObject **answer) {
    *answer = decode(c, lease);
    return *answer ? FIRST_DECODED : give_up(self, c, lease);
}
