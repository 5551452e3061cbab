/* The extension module vrange._hit: what a cache hit runs, and therefore keeps the GIL.
 *
 * Everything else goes through cffi (vrange._native), which releases the GIL around each call. Both
 * modules live in one shared library, so that there is one core and one state of it in the process.
 * Only storing or freeing a large value lets other threads run meanwhile. */
#include "python/module.h"

#include "python/lease.h"

static module_part *parts;

void module_register(module_part *part) {
    part->next = parts;
    parts = part;
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._hit",
                                        .m_doc = "What a cache hit runs, with the GIL held.",
                                        .m_size = -1}; /* one state a process, as the core has */

PyMODINIT_FUNC PyInit__hit(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && lease_add_types(module) < 0) Py_CLEAR(module);
    for (const module_part *part = parts; module && part; part = part->next) {
        if (part->add_to(module) < 0) Py_CLEAR(module);
    }
    return module;
}
