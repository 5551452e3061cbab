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
#include "ranges/worth.h"

#define PARTS_MOST 4096

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

/* Of a string that is all ASCII, its own bytes: encoding it would be a copy. */
static int get_bytes(PyObject *part, Py_buffer *view) {
    if (!PyUnicode_Check(part)) return PyObject_GetBuffer(part, view, PyBUF_SIMPLE);
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(part, &bytes);
    return text ? PyBuffer_FillInfo(view, part, (void *)(uintptr_t)text, bytes, 1, PyBUF_SIMPLE) : -1;
}

static PyObject *hit_blank(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long arena, cost_ns;
    Py_ssize_t bytes;
    unsigned int uses;
    if (!PyArg_ParseTuple(args, "KnKI", &arena, &bytes, &cost_ns, &uses)) return NULL;
    uint64_t handle;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = vrange_allocate((vrange_arena *)(uintptr_t)arena, (size_t)bytes, &handle);
    Py_END_ALLOW_THREADS
    if (result < 0) return raise_errno(result, "a value in the arena");
    if (cost_ns) vrange_set_cost(handle, cost_ns);
    vrange_used(handle, uses / USE);
    PyObject *lease = lease_of_pinned(handle, bytes, 1);
    if (lease) lease_own(lease, true);
    else vrange_free(handle);
    return lease;
}

static PyObject *hit_sealed(PyObject *module, PyObject *writable) {
    (void)module;
    Py_ssize_t bytes;
    if (!lease_memory(writable, &bytes)) return NULL;
    PyObject *lease = lease_of_whole(lease_handle(writable), bytes);
    if (!lease) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_MemoryError, "its arena was closed");
    lease_own(writable, false);
    lease_own(lease, true);
    return lease;
}

static PyObject *hit_write(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *lease, *part;
    Py_ssize_t at, from, most, bytes;
    if (!PyArg_ParseTuple(args, "OnOnn", &lease, &at, &part, &from, &most)) return NULL;
    char *to = lease_memory(lease, &bytes);
    Py_buffer view;
    if (!to || get_bytes(part, &view) < 0) return NULL;
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

static PyObject *get_size; /* sys.getsizeof */

Py_ssize_t key_bytes(PyObject *key) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *size = PyObject_CallFunctionObjArgs(get_size, key, NULL);
    Py_ssize_t bytes = size ? PyLong_AsSsize_t(size) : -1;
    Py_XDECREF(size);
    PyErr_Restore(type, error, traceback);
    if (bytes < 0) bytes = 64; /* it does not say */
    if (!PyTuple_CheckExact(key)) return bytes;
    const Py_ssize_t items = PyTuple_Size(key);
    for (Py_ssize_t i = 0; i < items; i++) {
        PyObject *item = PyTuple_GetItem(key, i);
        if (!PyTuple_CheckExact(item)) bytes += key_bytes(item);
    }
    return bytes;
}

static PyObject *hit_key_bytes(PyObject *module, PyObject *key) {
    (void)module;
    return PyLong_FromSsize_t(key_bytes(key));
}

static PyObject *hit_worth(PyObject *module, PyObject *handle) {
    (void)module;
    const uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred()) return NULL;
    return PyFloat_FromDouble(vrange_worth(number));
}

static PyObject *hit_store(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long arena, cost_ns;
    unsigned int uses;
    PyObject *sequence;
    if (!PyArg_ParseTuple(args, "KO!KI", &arena, &PyTuple_Type, &sequence, &cost_ns, &uses))
        return NULL;
    const Py_ssize_t count = PyTuple_Size(sequence);
    if (count == 0 || count > PARTS_MOST)
        return PyErr_Format(PyExc_ValueError, "1 to %d parts, not %zd", PARTS_MOST, count);
    Py_buffer *views = PyMem_Calloc((size_t)count, sizeof *views);
    vrange_part *parts = PyMem_Calloc((size_t)count, sizeof *parts);
    PyObject *lease = NULL;
    Py_ssize_t opened = 0, bytes = 0;
    if (!views || !parts) {
        PyErr_NoMemory();
        goto done;
    }
    for (; opened < count; opened++) {
        if (get_bytes(PyTuple_GetItem(sequence, opened), &views[opened]) < 0) goto done;
        parts[opened] = (vrange_part){views[opened].buf, (size_t)views[opened].len};
        bytes += views[opened].len;
    }
    uint64_t handle;
    int result;
    if (bytes < LET_OTHERS_RUN_BYTES) {
        result = vrange_store((vrange_arena *)(uintptr_t)arena, parts, (size_t)count, cost_ns, uses,
                              &handle);
    } else {
        Py_BEGIN_ALLOW_THREADS
        result = vrange_store((vrange_arena *)(uintptr_t)arena, parts, (size_t)count, cost_ns, uses,
                              &handle);
        Py_END_ALLOW_THREADS
    }
    if (result != VRANGE_OK) {
        raise_errno(result, "a value in the arena");
        goto done;
    }
    lease = lease_of_pinned(handle, bytes, 0);
    if (lease) lease_own(lease, true);
    else vrange_free(handle);
done:
    while (opened > 0) PyBuffer_Release(&views[--opened]);
    PyMem_Free(views);
    PyMem_Free(parts);
    return lease;
}

static PyObject *hit_allocate(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long arena, cost_ns;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "KnK", &arena, &bytes, &cost_ns)) return NULL;
    uint64_t handle;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = vrange_allocate((vrange_arena *)(uintptr_t)arena, (size_t)bytes, &handle);
    Py_END_ALLOW_THREADS
    if (result != VRANGE_OK) return raise_errno(result, "a range in the arena");
    if (cost_ns) vrange_set_cost(handle, cost_ns);
    vrange_release(handle);
    PyObject *entry = entry_make((cache_entry){.handle = handle, .nbytes = bytes, .decode = Py_None});
    if (!entry) vrange_free(handle);
    return entry;
}

static PyObject *hit_handle(PyObject *module, PyObject *lease) {
    (void)module;
    return PyLong_FromUnsignedLongLong(lease_handle(lease));
}

/* Small values share a range. Each is a word, its kind and its length, and the bytes themselves. */

#define LENGTH_BITS 24
#define LENGTH_MOST ((1u << LENGTH_BITS) - 1)

static PyObject *hit_write_packed(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long handle;
    unsigned int offset, kind;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "KIIy*", &handle, &offset, &kind, &data)) return NULL;
    if (data.len > (Py_ssize_t)LENGTH_MOST || kind > 0xff) {
        PyBuffer_Release(&data);
        return PyErr_Format(PyExc_ValueError, "too large to be packed");
    }
    int result = vrange_pin_whole(handle);
    if (result == VRANGE_OK) {
        char *at = (char *)vrange_address(handle) + offset;
        uint32_t head = (uint32_t)data.len | kind << LENGTH_BITS;
        memcpy(at, &head, sizeof head);
        memcpy(at + sizeof head, data.buf, (size_t)data.len);
        vrange_release(handle);
    }
    PyBuffer_Release(&data);
    if (result < 0) return raise_errno(result, "a pin");
    return PyBool_FromLong(result == VRANGE_OK);
}

static PyObject *hit_read_packed(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "read_packed(handle, offset)");
    uint64_t handle = PyLong_AsUnsignedLongLong(args[0]);
    size_t offset = PyLong_AsSize_t(args[1]);
    if (PyErr_Occurred()) return NULL;
    int result = vrange_pin_whole(handle);
    if (result < 0) return raise_errno(result, "a pin");
    if (result != VRANGE_OK) Py_RETURN_NONE;
    const char *at = (const char *)vrange_address(handle) + offset;
    uint32_t head;
    memcpy(&head, at, sizeof head);
    PyObject *value = Py_BuildValue("Iy#", head >> LENGTH_BITS, at + sizeof head,
                                    (Py_ssize_t)(head & LENGTH_MOST));
    vrange_release(handle);
    return value;
}

static PyObject *hit_forget(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long handle;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "Kn", &handle, &bytes)) return NULL;
    uint32_t uses = vrange_uses(handle);
    if (bytes < LET_OTHERS_RUN_BYTES) {
        vrange_free(handle);
    } else {
        Py_BEGIN_ALLOW_THREADS
        vrange_free(handle);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromUnsignedLong(uses);
}

static PyObject *hit_lost(PyObject *module, PyObject *arena) {
    (void)module;
    uint64_t handles[64];
    void *address = PyLong_AsVoidPtr(arena);
    if (PyErr_Occurred()) return NULL;
    size_t count = vrange_arena_lost(address, handles, sizeof handles / sizeof *handles);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *handle = PyLong_FromUnsignedLongLong(handles[i]);
        if (!handle) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, (Py_ssize_t)i, handle);
    }
    return list;
}

static PyObject *hit_epoch(PyObject *module, PyObject *arena) {
    (void)module;
    void *address = PyLong_AsVoidPtr(arena);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLong(vrange_arena_epoch(address));
}

static PyObject *hit_state(PyObject *module, PyObject *handle) {
    (void)module;
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(vrange_state(number));
}

static PyObject *hit_uses(PyObject *module, PyObject *handle) {
    (void)module;
    uint64_t number = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLong(vrange_uses(number));
}

static PyObject *hit_regenerated(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long account, nanoseconds, since_purge_ns;
    int kind;
    if (!PyArg_ParseTuple(args, "KiKK", &account, &kind, &nanoseconds, &since_purge_ns)) return NULL;
    vrange_account_regenerated((vrange_account *)(uintptr_t)account, nanoseconds);
    if (since_purge_ns) vrange_latency_record(kind, VRANGE_REALLOCATE_PURGED, since_purge_ns);
    Py_RETURN_NONE;
}

static PyObject *hit_count(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "count(account, outcome)");
    void *account = PyLong_AsVoidPtr(args[0]);
    long outcome = PyLong_AsLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (outcome >= 0 && outcome < VRANGE_REQUESTS) stats_request_with_gil(account, (int)outcome);
    Py_RETURN_NONE;
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
    {"store", hit_store, METH_VARARGS,
     "store(arena, parts, cost_ns, uses): a lease over a new range filled with the parts: what has a "
     "buffer, or a string that is all ASCII."},
    {"allocate", hit_allocate, METH_VARARGS,
     "allocate(arena, bytes, cost_ns): an Entry of a new range, volatile and with any content."},
    {"blank", hit_blank, METH_VARARGS,
     "blank(arena, bytes, cost_ns, uses): a writable lease over a new range of zeros."},
    {"write", hit_write, METH_VARARGS,
     "write(lease, at, part, from, most): copies up to `most` bytes of the part; how many they were."},
    {"sealed", hit_sealed, METH_O,
     "sealed(lease): a lease that nobody can write to, over the range of one from blank(), which goes "
     "with it."},
    {"key_bytes", hit_key_bytes, METH_O, "key_bytes(key): what it costs in memory, roughly."},
    {"worth", hit_worth, METH_O, "worth(handle): uses times the cost of computing; 0 where it is gone."},
    {"handle", hit_handle, METH_O, "handle(lease): the range under a lease."},
    {"write_packed", hit_write_packed, METH_VARARGS,
     "write_packed(handle, offset, kind, data): False where the range is purged or gone."},
    {"read_packed", FAST(hit_read_packed), METH_FASTCALL,
     "read_packed(handle, offset): (kind, data), or None where the range is purged or gone."},
    {"forget", hit_forget, METH_VARARGS,
     "forget(handle, bytes): frees a range and tells how often it was used, in sixteenths."},
    {"lost", hit_lost, METH_O,
     "lost(arena): handles of some ranges that were found purged, each told once."},
    {"epoch", hit_epoch, METH_O, "epoch(arena): how often its uses were halved so far."},
    {"state", hit_state, METH_O, "state(handle): one of VRANGE_STATE_."},
    {"uses", hit_uses, METH_O, "uses(handle): how often it was asked for, in sixteenths and aged."},
    {"regenerated", hit_regenerated, METH_VARARGS,
     "regenerated(account, kind, ns, since_purge_ns): counts a computation; since_purge_ns, if not 0, "
     "is what the caller waited for content that had been purged."},
    {"count", FAST(hit_count), METH_FASTCALL, "count(account, outcome): counts a request."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._hit",
                                        .m_doc = "What a cache hit runs, with the GIL held.",
                                        .m_size = -1, /* one state a process, as the core has */
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__hit(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module || lease_add_type(module) < 0 || hot_add_type(module) < 0 ||
        stopwatch_add_type(module) < 0 || ndarray_add_type(module) < 0 ||
        entry_add_type(module) < 0 || recall_add_type(module) < 0 ||
        lock_add_type(module) < 0 || flight_add_types(module) < 0 ||
        keep_add_type(module) < 0 || lead_add_type(module) < 0 ||
        room_add_type(module) < 0 || leaves_add_type(module) < 0 ||
        !(get_size = Py_XNewRef(PySys_GetObject("getsizeof")))) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
