/* The listener of a cache; see listener.h.
 *
 * A cache without a listener notes nothing. The notes are in blocks: a sweep may find a million entries lost,
 * when memory is short. A listener may use the cache, and so lead back here while some notes are left. So
 * each call takes one note off before it runs Python. */
#include "python/cache/listener.h"

#include <stdlib.h>

#define NOTES_IN_BLOCK 126

typedef struct note_block {
    struct note_block *next;
    uint32_t first, end; /* of `all` */
    struct {
        PyObject *key;
        leave_cause cause;
    } all[NOTES_IN_BLOCK];
} note_block;

static PyObject *words; /* a tuple: CAUSES */
static PyObject *signal_check; /* called with an exception: whether a signal handler raised it */

/* ---- notes ----------------------------------------------------------------------------------- */

static note_block *block_with_room(cache_core *self) {
    note_block *last = self->untold_last;
    if (last && last->end < NOTES_IN_BLOCK) return last;
    note_block *added = malloc(sizeof *added);
    if (!added) return NULL;
    added->next = NULL;
    added->first = added->end = 0;
    if (last) last->next = added;
    else self->untold = added;
    self->untold_last = added;
    return added;
}

void listener_note(cache_core *self, PyObject *key, leave_cause cause) {
    if (!self->on_evict || cause == NOT_TOLD) return;
    note_block *block = block_with_room(self);
    if (!block) return;
    block->all[block->end].key = Py_NewRef(key);
    block->all[block->end++].cause = cause;
    self->untold_count++;
}

/* Takes the oldest note off. Returns its key. NULL: there is none. */
static PyObject *take_off(cache_core *self, leave_cause *cause) {
    note_block *block = self->untold;
    if (!self->untold_count) return NULL;
    PyObject *key = block->all[block->first].key;
    *cause = block->all[block->first++].cause;
    self->untold_count--;
    if (block->first == block->end) {
        self->untold = block->next;
        if (!block->next) self->untold_last = NULL;
        free(block);
    }
    return key;
}

void listener_forget(cache_core *self) {
    leave_cause cause;
    for (PyObject *key; (key = take_off(self, &cause));) Py_DECREF(key);
}

int listener_visit(const cache_core *self, visitproc visit, void *arg) {
    for (const note_block *block = self->untold; block; block = block->next) {
        for (uint32_t i = block->first; i < block->end; i++) Py_VISIT(block->all[i].key);
    }
    return 0;
}

/* ---- telling --------------------------------------------------------------------------------- */

/* Whether the error that is set came from a signal handler that ran meanwhile. Keeps it set. May run Python. */
static bool is_of_signal(void) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback && error) PyException_SetTraceback(error, traceback);
    PyObject *answer = PyObject_CallFunctionObjArgs(signal_check, error, NULL);
    const bool is = answer == Py_True;
    Py_XDECREF(answer);
    PyErr_Clear();
    PyErr_Restore(type, error, traceback);
    return is;
}

/* False: an exception that is the caller's is set. */
static bool tell(cache_core *self, PyObject *key, leave_cause cause) {
    PyObject *listener = Py_NewRef(self->on_evict);
    PyObject *word = PyTuple_GetItem(words, (Py_ssize_t)cause);
    PyObject *done = PyObject_CallFunctionObjArgs(listener, key, word, NULL);
    const bool is_told = done || (PyErr_ExceptionMatches(PyExc_Exception) && !is_of_signal());
    if (!done && is_told) PyErr_WriteUnraisable(listener);
    Py_XDECREF(done);
    Py_DECREF(listener);
    return is_told;
}

/* The error that is set replaces an earlier one, which becomes its context. Steals the references. */
static void add_context(PyObject *type, PyObject *error, PyObject *traceback) {
    PyObject *new_type, *new_error, *new_traceback;
    PyErr_Fetch(&new_type, &new_error, &new_traceback);
    PyErr_NormalizeException(&new_type, &new_error, &new_traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback) PyException_SetTraceback(error, traceback);
    if (error != new_error) PyException_SetContext(new_error, Py_NewRef(error));
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    PyErr_Restore(new_type, new_error, new_traceback);
}

int listener_call(cache_core *self) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    Py_INCREF((PyObject *)self);
    bool goes_on = true;
    leave_cause cause;
    for (PyObject *key; goes_on && (key = take_off(self, &cause));) {
        goes_on = tell(self, key, cause);
        Py_DECREF(key);
    }
    Py_DECREF((PyObject *)self);
    if (type && goes_on) PyErr_Restore(type, error, traceback);
    else if (type) add_context(type, error, traceback);
    return goes_on ? 0 : -1;
}

/* ---- for Python ------------------------------------------------------------------------------ */

/* In the child of a fork: the parent reports the entries that left in the parent. Values that the child does
 * not inherit were never the child's, and are found lost later (evict_left_behind). */
PyObject *listeners_after_fork(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    for (cache_core *core = cores_first(); core; core = core->following) {
        Py_INCREF((PyObject *)core);
        core->is_heir = core->on_evict != NULL;
        listener_forget(core);
        Py_DECREF((PyObject *)core);
    }
    Py_RETURN_NONE;
}

PyObject *listener_set_signal_check(PyObject *module, PyObject *check) {
    (void)module;
    PyObject *before = signal_check;
    signal_check = Py_NewRef(check);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

int listener_add_causes(PyObject *module) {
    words = Py_BuildValue("(ssss)", "evicted", "expired", "purged", "refused");
    return words ? PyModule_AddObjectRef(module, "CAUSES", words) : -1;
}
