/* The key of a call; see call_key.h.
 *
 * One argument that is a str or an int is the key itself. Other arguments make a tuple, in which a mark
 * separates the positional from the named ones, and the types follow if they count. */
#include "python/cache/call_key.h"

static PyObject *keyword_mark; /* separates positional from named arguments in a key */

/* ---- arguments as objects --------------------------------------------------------------------- */

PyObject *positional_tuple(const arguments *given) {
    PyObject *tuple = PyTuple_New(given->positional);
    for (Py_ssize_t i = 0; tuple && i < given->positional; i++)
        PyTuple_SetItem(tuple, i, Py_NewRef(given->values[i]));
    return tuple;
}

PyObject *named_dict(const arguments *given) {
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict && i < given->named; i++) {
        if (PyDict_SetItem(dict, PyTuple_GetItem(given->names, i), given->values[given->positional + i]) < 0)
            Py_CLEAR(dict);
    }
    return dict;
}

/* ---- keys ------------------------------------------------------------------------------------- */

static PyObject *full_key(const key_rule *rule, const arguments *given) {
    const Py_ssize_t all = given->positional + given->named;
    PyObject *key = PyTuple_New(given->positional + (given->named ? 1 + 2 * given->named : 0) +
                                (rule->typed ? all : 0));
    if (!key) return NULL;
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < given->positional; i++)
        PyTuple_SetItem(key, at++, Py_NewRef(given->values[i]));
    if (given->named) PyTuple_SetItem(key, at++, Py_NewRef(keyword_mark));
    for (Py_ssize_t i = 0; i < given->named; i++) {
        PyTuple_SetItem(key, at++, Py_NewRef(PyTuple_GetItem(given->names, i)));
        PyTuple_SetItem(key, at++, Py_NewRef(given->values[given->positional + i]));
    }
    for (Py_ssize_t i = 0; rule->typed && i < all; i++)
        PyTuple_SetItem(key, at++, Py_NewRef((PyObject *)Py_TYPE(given->values[i])));
    return key;
}

static PyObject *key_by_function(const key_rule *rule, const arguments *given) {
    PyObject *args = positional_tuple(given), *kwargs = given->named ? named_dict(given) : NULL;
    PyObject *key = NULL;
    if (args && (kwargs || !given->named)) key = PyObject_Call(rule->function, args, kwargs);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return key;
}

PyObject *make_key(const key_rule *rule, const arguments *given) {
    if (rule->function) return key_by_function(rule, given);
    if (rule->typed || given->named) return full_key(rule, given);
    if (given->positional == 1 && stands_for_itself(given->values[0])) return Py_NewRef(given->values[0]);
    return positional_tuple(given);
}

PyObject *key_of_all(const key_rule *rule, PyObject *const *values, size_t count, PyObject *names) {
    const arguments given = arguments_of(values, count, names);
    return make_key(rule, &given);
}

bool call_key_start(PyObject *module) {
    keyword_mark = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    return keyword_mark && PyModule_AddObjectRef(module, "KEYWORD_MARK", keyword_mark) == 0;
}
