/* The extension module vrange._hit: what a cache hit runs, and therefore keeps the GIL.
 *
 * Everything else goes through cffi (vrange._native), which gives the GIL up around each call. Both
 * modules live in one shared library, so that there is one core and one state of it in the process.
 * Only storing or freeing a large value lets other threads run meanwhile. */
#include "python/hit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "counters/stats.h"

PyObject *raise_errno(int error, const char *doing) {
    if (error == -ENOMEM) return PyErr_Format(PyExc_MemoryError, "no memory for %s", doing);
    errno = -error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    if (!type) return NULL;
    const char *name = strrchr(spec->name, '.') + 1;
    return PyModule_AddObject(module, name, Py_NewRef(type)) < 0 ? NULL : (PyTypeObject *)type;
}

static PyObject **reference_at(PyObject *object, size_t offset) {
    return (PyObject **)(void *)((char *)object + offset);
}

int visit_references(PyObject *object, const size_t *offsets, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    for (; *offsets; offsets++) Py_VISIT(*reference_at(object, *offsets));
    return 0;
}

int clear_references(PyObject *object, const size_t *offsets) {
    for (; *offsets; offsets++) Py_CLEAR(*reference_at(object, *offsets));
    return 0;
}

void free_collected(PyObject *object, const size_t *offsets) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear_references(object, offsets);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static void release_range(const lease_pin *pin) { vrange_release(pin->handle); }

static void release_blocks(const lease_pin *pin) {
    vrange_array_unpin(pin->array, pin->first_block, pin->blocks);
}

PyObject *lease_of_pinned(uint64_t handle, Py_ssize_t bytes, int writable) {
    lease_pin pin = {.release = release_range, .handle = handle};
    return lease_over(pin, vrange_address(handle), bytes, writable);
}

static PyObject *hit_pin(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "pin(handle, bytes)");
    uint64_t handle = PyLong_AsUnsignedLongLong(args[0]);
    Py_ssize_t bytes = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred()) return NULL;
    int result = vrange_pin_whole(handle);
    if (result < 0) return raise_errno(result, "a pin");
    if (result != VRANGE_OK) Py_RETURN_NONE;
    return lease_of_pinned(handle, bytes, 0);
}

PyObject *lease_of_whole(uint64_t handle, Py_ssize_t bytes) {
    return vrange_pin_whole(handle) == VRANGE_OK ? lease_of_pinned(handle, bytes, 0) : NULL;
}

static PyObject *hit_adopt(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long handle;
    Py_ssize_t bytes;
    int writable;
    if (!PyArg_ParseTuple(args, "Knp", &handle, &bytes, &writable)) return NULL;
    return lease_of_pinned(handle, bytes, writable);
}

static PyObject *hit_state(PyObject *module, PyObject *handle) {
    (void)module;
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(vrange_state(number));
}

static PyObject *hit_adopt_blocks(PyObject *module, PyObject *args) {
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

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef functions[] = {
    {"pin", FAST(hit_pin), METH_FASTCALL,
     "pin(handle, bytes): a lease over a range that is all there, or None."},
    {"adopt", hit_adopt, METH_VARARGS,
     "adopt(handle, bytes, writable): a lease that takes over a pin the caller has."},
    {"adopt_blocks", hit_adopt_blocks, METH_VARARGS,
     "adopt_blocks(array, first, count, offset, bytes, owner): the same for pinned blocks of an array, "
     "which `owner` keeps; with no blocks, a buffer that pins nothing."},
    {"python_regenerator", hit_python_regenerator, METH_NOARGS,
     "python_regenerator(): the address of a regenerator whose context is a Python callable."},
    {"state", hit_state, METH_O, "state(handle): one of VRANGE_STATE_."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._hit",
                                        .m_doc = "What a cache hit runs, with the GIL held.",
                                        .m_size = -1, /* one state a process, as the core has */
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__hit(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module || lease_add_type(module) < 0 ||
        stopwatch_add_type(module) < 0 || ndarray_add_type(module) < 0 ||
        room_add_type(module) < 0 || leaves_add_type(module) < 0 ||
        cache_add_types(module) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
