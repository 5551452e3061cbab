/* PlainBytes: a base class that lets system calls read an object whose memory has to be pinned first.
 *
 * `file.write(a)`, `os.write`, sockets and hashlib ask for plain bytes. The object's method _plain_bytes()
 * then returns its memory, pinned; the request is passed on to it, so that the pin lasts as long as the
 * buffer. Requests for a format or strides come from memoryview and from NumPy, which tries a buffer
 * before __array__. They are refused: np.asarray(a) must not pin all of the array.
 *
 * The type is native because a Python class can have a buffer from CPython 3.12 on only. */
#include "python/module.h"
#include "python/support.h"

static int get_buffer(PyObject *object, Py_buffer *view, int flags) {
    view->obj = NULL;
    if (flags & PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "a VolatileArray is read-only: its content comes from its fill");
        return -1;
    }
    if (flags & (PyBUF_FORMAT | (PyBUF_STRIDES & ~PyBUF_ND))) {
        PyErr_SetString(PyExc_BufferError,
                        "a VolatileArray has no memoryview of its own: take one of a pinned part, "
                        "`with a.pin(slice(0, 1000)) as part: memoryview(part)`");
        return -1;
    }
    PyObject *pinned = PyObject_CallMethod(object, "_plain_bytes", NULL);
    if (!pinned) return -1;
    const int result = PyObject_GetBuffer(pinned, view, flags);
    Py_DECREF(pinned); /* the view keeps it */
    return result;
}

/* The buffer is the pinned memory's, which releases it. That there is a function here tells callers that
 * they must keep the buffer while they use the address: without one, np.frombuffer would drop the pin. */
static void release_buffer(PyObject *object, Py_buffer *view) {
    (void)object;
    (void)view;
}

static int add_to(PyObject *module) {
    static PyType_Slot slots[] = {
        {Py_tp_doc, "A base class of what system calls may read once _plain_bytes() has pinned it."},
        {Py_bf_getbuffer, get_buffer},
        {Py_bf_releasebuffer, release_buffer},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.PlainBytes",
                               .basicsize = sizeof(PyObject),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                               .slots = slots};
    PyTypeObject *type = add_type(module, &spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}

__attribute__((constructor)) static void register_type(void) {
    static module_part part = {.add_to = add_to};
    module_register(&part);
}
