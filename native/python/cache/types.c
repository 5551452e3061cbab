/* The roof of this room: what it adds to the extension module vrange._hit. */
#include "python/cache/cache.h"
#include "python/cache/call.h"
#include "python/cache/compute_async.h"
#include "python/cache/flight.h"
#include "python/cache/form.h"
#include "python/cache/hot_front.h"
#include "python/cache/index.h"
#include "python/cache/key_weight.h"
#include "python/cache/known.h"
#include "python/cache/leaves.h"
#include "python/cache/listener.h"
#include "python/cache/ndarray.h"
#include "python/cache/room_type.h"
#include "python/cache/shared_reads.h"
#include "python/cache/stopwatch.h"
#include "python/cache/wait.h"
#include "python/cache/waiter.h"
#include "python/module.h"

static int add_to(PyObject *module) {
    static PyMethodDef functions[] = {
        {"write", form_write, METH_VARARGS,
         "write(lease, at, part, from, most): copies up to `most` bytes of the part, which has a buffer or is "
         "a string that is all ASCII; how many they were."},
        {"use_hot_share", hot_use_share, METH_O,
         "use_hot_share(share): hot fronts may use this share of their bounds; the bytes let go."},
        {"set_hot_bytes", hot_set_automatic, METH_O,
         "set_hot_bytes(bytes): of all hot fronts with the default bound together."},
        {"set_index_bytes", index_set_bounds, METH_VARARGS,
         "set_index_bytes(together, each): of keys and entries of all caches without max_entries, and of one "
         "with it."},
        {"forget_flights", flight_forget_others, METH_O,
         "forget_flights(led): in the child of a fork, all but those led here are over."},
        {"set_copy", flight_set_copy, METH_O,
         "set_copy(copy): copy(value) is a copy that shares nothing that can be changed."},
        {"forget_events", listeners_after_fork, METH_NOARGS,
         "forget_events(): in the child of a fork, no listener is called for what left or stayed in the "
         "parent."},
        {"set_signal_check", listener_set_signal_check, METH_O,
         "set_signal_check(check): check(error) is whether a signal handler raised it."},
        {0}};
    int (*const parts[])(PyObject *) = {stopwatch_add_type, ndarray_add_type, room_add_type,
                                        leaves_add_type, form_add_type, waiter_add_type,
                                        flight_add_type, wait_add_functions, compute_async_add_type,
                                        core_add_type, known_add_type, shared_reads_add_type,
                                        call_add_type, listener_add_causes};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i](module) < 0) return -1;
    }
    if (key_weight_prepare() < 0) return -1;
    if (PyModule_AddIntConstant(module, "OBJECT_BYTES", OBJECT_BYTES) < 0) return -1;
    if (PyModule_AddIntConstant(module, "HOT_ARRAYS_MOST", HOT_ARRAYS_MOST) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}

__attribute__((constructor)) static void register_types(void) {
    static module_part part = {.add_to = add_to};
    module_register(&part);
}
