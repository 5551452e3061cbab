/* The key of a call: made of the arguments, as the interpreter passes them. */
#ifndef VRANGE_CACHE_CALL_KEY_H
#define VRANGE_CACHE_CALL_KEY_H

#include "python/support.h"

#include <stdbool.h>

typedef struct {
    PyObject *function; /* called with the arguments; NULL: the arguments are the key */
    bool typed;         /* the types of the arguments are part of the key */
} key_rule;

#define ARGUMENTS_OFFSET ((size_t)1 << (8 * sizeof(size_t) - 1))

typedef struct {
    PyObject *const *values; /* the positional arguments, then the values of the named ones */
    Py_ssize_t positional, named;
    PyObject *names; /* tuple or NULL */
} arguments;

static inline arguments arguments_of(PyObject *const *values, size_t count, PyObject *names) {
    return (arguments){.values = values,
                       .positional = (Py_ssize_t)(count & ~ARGUMENTS_OFFSET),
                       .named = names ? PyTuple_Size(names) : 0,
                       .names = names};
}

/* New references; NULL with an error set. */
PyObject *positional_tuple(const arguments *given);
PyObject *named_dict(const arguments *given);

/* New references; NULL with an error set. A rule with a function runs Python. */
PyObject *make_key(const key_rule *rule, const arguments *given);
PyObject *key_of_all(const key_rule *rule, PyObject *const *values, size_t count, PyObject *names);

static inline bool stands_for_itself(PyObject *only) {
    /* An exact str or int never equals a tuple, so it can be the key in place of a tuple of one item. */
    return PyUnicode_CheckExact(only) || PyLong_CheckExact(only);
}

/* Does the same. Inline for the most frequent call, with one str or int. */
static inline PyObject *key_of_vector(const key_rule *rule, PyObject *const *values, size_t count,
                                      PyObject *names) {
    const bool is_one = (count & ~ARGUMENTS_OFFSET) == 1 && !names && !rule->function && !rule->typed;
    if (is_one && stands_for_itself(values[0])) return Py_NewRef(values[0]);
    return key_of_all(rule, values, count, names);
}

/* Called once, when the type is made. */
bool call_key_start(PyObject *module);

#endif
