/* The lease: a buffer that pins memory while it lives.
 *
 * Users never pin and unpin cached values themselves. An array, a memoryview or an unpickled object that
 * refers to a range holds a lease through the buffer protocol. When the last of them dies, the lease dies and
 * drops its pin. That costs one compare-and-swap and keeps the GIL. A call that released the GIL would have
 * to win it back, which takes 5 ms each time while another Python thread is busy.
 *
 * It is a type of its own because ffi.gc and weakref.finalize cost 3 to 8 times as much, and because only a
 * buffer of our own stays read-only. */
#include "python/lease.h"

#include <stdbool.h>

/* What a lease holds: a range, or blocks of an array. */
typedef struct lease_pin {
    void (*release)(const struct lease_pin *pin); /* NULL: the pin was dropped */
    uint64_t handle;
    vrange_array *array;
    size_t first_block, blocks;
    PyObject *owner; /* what keeps the memory mapped; NULL: the pin itself does */
} lease_pin;

typedef struct {
    PyObject_HEAD
    lease_pin pin;
    void *address;
    Py_ssize_t bytes;
    Py_ssize_t exports;
    int writable;
} lease;

static PyTypeObject *lease_type;

static PyObject *lease_over(lease_pin pin, void *address, Py_ssize_t bytes, int writable) {
    lease *self = PyObject_New(lease, lease_type);
    if (!self) {
        pin.release(&pin);
        return NULL;
    }
    self->pin = pin;
    Py_XINCREF(pin.owner);
    self->address = address;
    self->bytes = bytes;
    self->exports = 0;
    self->writable = writable;
    return (PyObject *)self;
}

void *lease_memory(PyObject *object, Py_ssize_t *bytes) {
    lease *self = (lease *)object;
    if (!PyObject_TypeCheck(object, lease_type) || !self->pin.release) {
        PyErr_SetString(PyExc_TypeError, "not a lease, or one that was released");
        return NULL;
    }
    *bytes = self->bytes;
    return self->address;
}

static void drop(lease *self) {
    lease_pin pin = self->pin;
    self->pin.release = NULL;
    if (!pin.release) return;
    pin.release(&pin);
    Py_XDECREF(pin.owner);
}

static void lease_dealloc(PyObject *object) {
    lease *self = (lease *)object;
    PyTypeObject *type = Py_TYPE(object);
    drop(self);
    PyObject_Free(object);
    Py_DECREF(type);
}

static int lease_get_buffer(PyObject *object, Py_buffer *view, int flags) {
    lease *self = (lease *)object;
    if (!self->pin.release) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "this range is not pinned any more: pin() it again");
        return -1;
    }
    if (PyBuffer_FillInfo(view, object, self->address, self->bytes, !self->writable, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void lease_release_buffer(PyObject *object, Py_buffer *view) {
    (void)view;
    ((lease *)object)->exports--;
}

static PyObject *lease_release(PyObject *object, PyObject *unused) {
    (void)unused;
    lease *self = (lease *)object;
    if (self->exports) {
        return PyErr_Format(PyExc_BufferError,
                            "%zd view(s) of this range are still alive: delete them, or release() "
                            "the memoryviews, before it is marked volatile",
                            self->exports);
    }
    drop(self);
    Py_RETURN_NONE;
}

static PyObject *lease_repr(PyObject *object) {
    lease *self = (lease *)object;
    if (!self->pin.release) return PyUnicode_FromString("<vrange lease, released>");
    return PyUnicode_FromFormat("<vrange lease of %zd bytes, %s, %zd views>", self->bytes,
                                self->writable ? "writable" : "read-only", self->exports);
}

static Py_ssize_t lease_length(PyObject *object) { return ((lease *)object)->bytes; }

static PyObject *lease_get_exports(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromSsize_t(((lease *)object)->exports);
}

/* ---- over ranges and blocks ------------------------------------------------------------------ */

static void release_range(const lease_pin *pin) { vrange_release(pin->handle); }

static void release_blocks(const lease_pin *pin) {
    vrange_array_unpin(pin->array, pin->first_block, pin->blocks);
}

PyObject *lease_of_pinned(uint64_t handle, Py_ssize_t bytes, int writable) {
    lease_pin pin = {.release = release_range, .handle = handle};
    return lease_over(pin, vrange_address(handle), bytes, writable);
}

PyObject *lease_of_whole(uint64_t handle, Py_ssize_t bytes) {
    return vrange_pin_whole(handle) == VRANGE_OK ? lease_of_pinned(handle, bytes, 0) : NULL;
}

static PyObject *adopt(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long handle;
    Py_ssize_t bytes;
    int writable;
    if (!PyArg_ParseTuple(args, "Knp", &handle, &bytes, &writable)) return NULL;
    return lease_of_pinned(handle, bytes, writable);
}

static PyObject *state(PyObject *module, PyObject *handle) {
    (void)module;
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(vrange_state(number));
}

static PyObject *adopt_blocks(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long array;
    Py_ssize_t first, count, offset, bytes;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "KnnnnO", &array, &first, &count, &offset, &bytes, &owner))
        return NULL;
    lease_pin pin = {.release = release_blocks,
                     .array = (vrange_array *)(uintptr_t)array,
                     .first_block = (size_t)first,
                     .blocks = (size_t)count,
                     .owner = owner};
    char *address = vrange_array_address(pin.array);
    return lease_over(pin, address + offset, bytes, 0);
}

/* ---- the type and its functions -------------------------------------------------------------- */

int lease_add_types(PyObject *module) {
    static PyMethodDef functions[] = {
        {"adopt", adopt, METH_VARARGS,
         "adopt(handle, bytes, writable): a lease that takes over a pin of the caller's."},
        {"adopt_blocks", adopt_blocks, METH_VARARGS,
         "adopt_blocks(array, first, count, offset, bytes, owner): the same for pinned blocks of an array, "
         "which `owner` keeps; with no blocks, a buffer that pins nothing."},
        {"state", state, METH_O, "state(handle): one of VRANGE_STATE_."},
        {0}};
    static PyMethodDef methods[] = {
        {"release", lease_release, METH_NOARGS,
         "release(): drops the pin now. BufferError while a view is alive; the second call does nothing."},
        {0}};
    static PyGetSetDef members[] = {
        {"exports", lease_get_exports, NULL, "The number of views of the buffer that are alive.", NULL}, {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "A pin on a range, alive as long as a view of its memory is."},
        {Py_tp_dealloc, lease_dealloc},
        {Py_tp_repr, lease_repr},
        {Py_tp_methods, methods},
        {Py_tp_getset, members},
        {Py_bf_getbuffer, lease_get_buffer},
        {Py_bf_releasebuffer, lease_release_buffer},
        {Py_sq_length, lease_length},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Lease",
        .basicsize = sizeof(lease),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    lease_type = add_type(module, &spec);
    return lease_type ? PyModule_AddFunctions(module, functions) : -1;
}
