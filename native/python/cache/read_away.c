/* Reads a value that another process has; see read_away.h.
 *
 * The copy lives as long as the value that refers to it, and no longer: it is in memory twice meanwhile. It is
 * no lease, because it lies in ordinary memory and pins nothing. */
#include "python/cache/read_away.h"

#include "pressure/room_for_copy.h"
#include "python/cache/codec.h"

/* 0, or -1: there is no room for a copy. */
static int copy_large(uint64_t handle, PyObject *copy, Py_ssize_t bytes, int *result) {
    const bool needs_room = (size_t)bytes >= ROOM_BYTES;
    char *to = PyBytes_AsString(copy);
    bool has_room;
    Py_BEGIN_ALLOW_THREADS
    has_room = !needs_room || vrange_room_take((uint64_t)bytes) == VRANGE_OK;
    if (has_room) *result = vrange_read_away(handle, 0, to, (size_t)bytes);
    if (has_room && needs_room) vrange_room_give((uint64_t)bytes);
    Py_END_ALLOW_THREADS
    return has_room ? 0 : -1;
}

PyObject *read_away(uint64_t handle, Py_ssize_t bytes, PyObject *form, bool is_text, bool *is_lost) {
    PyObject *copy = PyBytes_FromStringAndSize(NULL, bytes);
    if (!copy) return NULL;
    int result = VRANGE_OK, has_room = 0;
    if (bytes < (Py_ssize_t)LET_OTHERS_RUN_BYTES)
        result = vrange_read_away(handle, 0, PyBytes_AsString(copy), (size_t)bytes);
    else
        has_room = copy_large(handle, copy, bytes, &result);
    *is_lost = has_room == 0 && result != VRANGE_OK;
    PyObject *value = NULL;
    if (has_room < 0) PyErr_NoMemory();
    else if (!*is_lost) value = decode_copy(form, is_text, copy);
    Py_DECREF(copy);
    return value;
}
