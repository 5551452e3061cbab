/* What the files of the extension module vrange._hit share. */
#ifndef VRANGE_HIT_H
#define VRANGE_HIT_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

#include <stdbool.h>

#include "vrange.h"

/* What a lease holds: a range, or blocks of an array. */
typedef struct lease_pin {
    void (*release)(const struct lease_pin *pin);
    uint64_t handle;
    vrange_array *array;
    size_t first_block, blocks;
    PyObject *owner; /* what keeps the memory mapped; NULL: the pin itself does */
} lease_pin;

/* A lease over memory that the caller has pinned; the pin is the lease's from now on, also where NULL
 * is returned. */
PyObject *lease_over(lease_pin pin, void *address, Py_ssize_t bytes, int writable);
/* What it pins; NULL with an error set where it is no lease, or released. */
void *lease_memory(PyObject *lease, Py_ssize_t *bytes);
int lease_add_type(PyObject *module);

/* A lease that takes over a pin the caller has. */
PyObject *lease_of_pinned(uint64_t handle, Py_ssize_t bytes, int writable);

/* A lease over a range that is all there. NULL where it is not, without an error set. */
PyObject *lease_of_whole(uint64_t handle, Py_ssize_t bytes);

/* A vrange_regenerate whose context is a callable: (address, offset, bytes). */
int regenerate_by_python(void *to, size_t offset, size_t bytes, void *context);
PyObject *hit_python_regenerator(PyObject *module, PyObject *unused);

typedef struct {
    uint64_t started_ns, cpu_ns, waits;
} stopwatch;

typedef struct {
    uint64_t passed_ns, cost_ns;
} time_taken;

/* For the thread that starts it. */
stopwatch stopwatch_start(void);
time_taken stopwatch_read(const stopwatch *watch);
int stopwatch_add_type(PyObject *module);

/* A Viewer makes an ndarray of a lease (ndarray.c). */
bool is_viewer(PyObject *object);
PyObject *view_lease(PyObject *viewer, PyObject *lease);
PyObject *view_bytes(PyObject *viewer, PyObject *bytes); /* the same over a bytes object */
/* The Viewer that is known for arrays like this one, borrowed; NULL where there is none, or where it is
 * not an array that lies in memory row by row. No error is set. */
PyObject *viewer_of_array(PyObject *object);
/* Where its bytes are. */
vrange_part array_content(PyObject *array, PyObject *its_viewer);
int ndarray_add_type(PyObject *module);

int room_add_type(PyObject *module);   /* Room: bytes reserved for a copy (room_type.c) */
int leaves_add_type(PyObject *module); /* Leaves: what a pickle leaves out (leaves.c) */
int cache_add_types(PyObject *module);  /* CacheCore, and what belongs to it (cache/core.h) */

/* From here copying takes longer than winning the GIL back. */
#define LET_OTHERS_RUN_BYTES (1 << 20)

/* Makes a type and puts it into the module; the reference is for the caller to keep. NULL with an error
 * set. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);

/* What the collector asks of a type, given where its references to Python objects are; 0 ends them. */
int visit_references(PyObject *object, const size_t *offsets, visitproc visit, void *arg);
int clear_references(PyObject *object, const size_t *offsets);
void free_collected(PyObject *object, const size_t *offsets);

/* Raises what a negative errno of the core means. Always returns NULL. */
PyObject *raise_errno(int error, const char *doing);

#endif
