/* Room objects: the bytes that one store or one decoding has reserved. They are given back when the object
 * dies, so also if a signal handler raises between two lines of Python. */
#include "python/cache/room_type.h"

#include "pressure/room_for_copy.h"
#include "vrange.h"

typedef struct {
    PyObject_HEAD
    uint64_t taken;
} room_object;

static void give_back(room_object *self) {
    const uint64_t taken = self->taken;
    self->taken = 0;
    if (taken) vrange_room_give(taken);
}

static PyObject *room_hold(PyObject *object, PyObject *number) {
    room_object *self = (room_object *)object;
    const uint64_t bytes = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred()) return NULL;
    give_back(self);
    if (bytes < ROOM_BYTES) Py_RETURN_NONE;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = vrange_room_take(bytes);
    Py_END_ALLOW_THREADS
    if (result < 0) return PyErr_Format(PyExc_MemoryError, "no room for %llu bytes more",
                                        (unsigned long long)bytes);
    self->taken = bytes;
    Py_RETURN_NONE;
}

static PyObject *room_release(PyObject *object, PyObject *unused) {
    (void)unused;
    give_back((room_object *)object);
    Py_RETURN_NONE;
}

static void room_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    give_back((room_object *)object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

int room_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"hold", room_hold, METH_O,
         "hold(bytes): reserves so many free bytes, instead of those it held. Raises MemoryError if there is "
         "no room. Less than ROOM_BYTES needs no reservation."},
        {"release", room_release, METH_NOARGS, "release(): gives back the reserved bytes."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Room(): bytes reserved for a copy that is about to be made."},
        {Py_tp_new, PyType_GenericNew},
        {Py_tp_dealloc, room_dealloc},
        {Py_tp_methods, methods},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Room",
                               .basicsize = sizeof(room_object),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    if (PyModule_AddIntConstant(module, "ROOM_BYTES", ROOM_BYTES) < 0) return -1;
    return add_type(module, &spec) ? 0 : -1;
}
