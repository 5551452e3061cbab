/* Refresh; see refresh.h.
 *
 * Python computes it, in a thread or a task (_cache/refresh.py), and stores it by renew(). The entry keeps the
 * stale value meanwhile, so nobody waits. Its stamp tells whether the key was set or removed since: then what
 * was computed is dropped. */
#include "python/cache/refresh.h"

#include "python/cache/store.h"

PyObject *refresh_stale(const refresh_call *call, PyObject *value) {
    PyObject *begun = NULL;
    if (call->args && call->core->refresh)
        begun = PyObject_CallFunction(call->core->refresh, "OOkOOOO", (PyObject *)call->core, call->key,
                                      (unsigned long)call->stamp, call->function, call->args,
                                      call->kwargs ? call->kwargs : Py_None, call->loop ? call->loop : Py_None);
    Py_XDECREF(begun);
    if (begun) return value;
    Py_DECREF(value);
    return NULL;
}

PyObject *refresh_by(cache_core *self, PyObject *key, const looked_up *found, PyObject *function,
                     PyObject *loop) {
    if (!found->stamp) return found->value;
    PyObject *nothing = PyTuple_New(0);
    const refresh_call call = {self, key, found->stamp, function, nothing, NULL, loop};
    PyObject *value = refresh_stale(&call, found->value);
    Py_XDECREF(nothing);
    return value;
}

PyObject *refresh_renew(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (count != 4) return PyErr_Format(PyExc_TypeError, "renew(key, stamp, value, cost_ns)");
    cache_core *self = (cache_core *)object;
    const unsigned long stamp = PyLong_AsUnsignedLong(args[1]);
    const unsigned long long cost_ns = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(args[3]);
    key_hash hash;
    if (PyErr_Occurred() || !hash_key(args[0], &hash)) return NULL;
    const int done = store_renewed(self, args[0], hash, args[2], (uint32_t)stamp, cost_ns);
    if (done < 0) return NULL;
    if (done) vrange_account_regenerated(self->account, cost_ns);
    return PyBool_FromLong(done);
}
