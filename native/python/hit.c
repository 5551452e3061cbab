/* The extension module vrange._hit: what a cache hit runs, and therefore keeps the GIL.
 *
 * Everything else goes through cffi (vrange._native), which releases the GIL around each call. Both
 * modules live in one shared library, so that there is one core and one state of it in the process.
 * Only storing or freeing a large value lets other threads run meanwhile. */
#include "python/hit.h"

#include <stdlib.h>

#include "python/lease.h"

#define ROOMS_MOST 4

static struct {
    int (*add_to[ROOMS_MOST])(PyObject *module);
    size_t count;
} rooms;

void hit_register(int (*add_to)(PyObject *module)) {
    if (rooms.count == ROOMS_MOST) abort();
    rooms.add_to[rooms.count++] = add_to;
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._hit",
                                        .m_doc = "What a cache hit runs, with the GIL held.",
                                        .m_size = -1}; /* one state a process, as the core has */

PyMODINIT_FUNC PyInit__hit(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && lease_add_types(module) < 0) Py_CLEAR(module);
    for (size_t i = 0; module && i < rooms.count; i++) {
        if (rooms.add_to[i](module) < 0) Py_CLEAR(module);
    }
    return module;
}
