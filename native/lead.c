/* Leading: a value that is nowhere is computed and kept without a Python frame of ours.
 *
 * What singleflight.py says of one computation per key holds here too. Most computations are begun with
 * nobody at the same key, and nobody comes to wait: that is all this does, and what it does not do it
 * leaves undone, for Python to begin again. Why natively, keep.c says. */
#include "hit.h"

#include <stddef.h>

#include "os.h"
#include "stats.h"

typedef struct {
    PyObject_HEAD
    PyObject *keeper;
    PyObject *keep_slowly; /* called with key, value and cost where the keeper doesn't; what is returned */
    PyObject *under_way;   /* dict, key to flight */
    PyObject *flight;      /* their type */
    PyObject *get_led, *set_led; /* the flights led in this context, a tuple */
    PyObject *absent;
    vrange_account *account;
} leader;

static PyTypeObject *leader_type;
static PyObject *setdefault_name, *landed_name, *waiters_name, *land_name;

/* A flight of our own under the key. NULL where there is another's, or with an error set. */
static PyObject *take_off(leader *self, PyObject *key) {
    PyObject *mine = PyObject_CallNoArgs(self->flight);
    if (!mine) return NULL;
    /* Atomic, also where comparing keys runs Python code. */
    PyObject *first = PyObject_CallMethodObjArgs(self->under_way, setdefault_name, key, mine, NULL);
    Py_XDECREF(first); /* the dict has it, or it is not ours */
    if (first != mine) Py_CLEAR(mine);
    return mine;
}

static int tell_waiting(PyObject *flight, PyObject *value) {
    PyObject *result = value ? Py_BuildValue("(OO)", Py_True, value) : Py_BuildValue("(OO)", Py_False, Py_None);
    PyObject *told = result ? PyObject_CallMethodObjArgs(flight, land_name, result, NULL) : NULL;
    Py_XDECREF(result);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

/* Comparing keys may run Python code, and fail. */
static int take_away(leader *self, PyObject *key, PyObject *flight) {
    PyObject *found = PyDict_GetItemWithError(self->under_way, key);
    if (found != flight) return PyErr_Occurred() ? -1 : 0;
    return PyDict_DelItem(self->under_way, key);
}

static int say_landed(PyObject *flight, PyObject *value) {
    if (PyObject_SetAttr(flight, landed_name, Py_True) < 0) return -1;
    PyObject *waiters = PyObject_GetAttr(flight, waiters_name);
    Py_XDECREF(waiters);
    if (!waiters) return -1;
    return waiters == Py_None ? 0 : tell_waiting(flight, value);
}

/* As SingleFlight._land does: nobody finds it any more, then it has landed, then who waits is told, in any
 * case. -1 with an error set; one that is set before stays. */
static int land(leader *self, PyObject *key, PyObject *flight, PyObject *value) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    int result = take_away(self, key, flight);
    if (!type) PyErr_Fetch(&type, &error, &traceback);
    if (say_landed(flight, value) < 0) result = -1;
    if (type) PyErr_Restore(type, error, traceback);
    return result;
}

static PyObject *compute(leader *self, PyObject *key, call_of call, int outcome, uint64_t asked_ns) {
    stats_request_with_gil(self->account, outcome);
    stopwatch watch = stopwatch_start();
    PyObject *computed = PyObject_Call(call.function, call.args, call.kwargs);
    if (!computed) return NULL;
    const time_taken took = stopwatch_read(&watch);
    PyObject *kept = keep(self->keeper, key, computed, took.cost_ns);
    if (!kept && !PyErr_Occurred())
        kept = PyObject_CallFunction(self->keep_slowly, "OOK", key, computed,
                                     (unsigned long long)took.cost_ns);
    Py_DECREF(computed);
    if (!kept) return NULL;
    vrange_account_regenerated(self->account, took.passed_ns);
    if (outcome == VRANGE_REQUEST_PURGED)
        vrange_latency_record(VRANGE_KIND_CACHE, VRANGE_REALLOCATE_PURGED, os_now_ns() - asked_ns);
    return kept;
}

static PyObject *with_one_more(PyObject *led, PyObject *flight) {
    const Py_ssize_t count = PyTuple_Size(led);
    PyObject *longer = count < 0 ? NULL : PyTuple_New(count + 1);
    if (!longer) return NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SetItem(longer, i, Py_NewRef(PyTuple_GetItem(led, i)));
    PyTuple_SetItem(longer, count, Py_NewRef(flight));
    return longer;
}

static int set_led(leader *self, PyObject *flights) {
    PyObject *token = PyObject_CallFunctionObjArgs(self->set_led, flights, NULL);
    Py_XDECREF(token);
    return token ? 0 : -1;
}

/* Computes as a part of the flight, so that whoever waits in there is known to be waited for. */
static PyObject *compute_in(leader *self, PyObject *flight, PyObject *key, call_of call, int outcome,
                            uint64_t asked_ns) {
    PyObject *value = NULL;
    PyObject *led = PyObject_CallNoArgs(self->get_led);
    PyObject *longer = led ? with_one_more(led, flight) : NULL;
    if (longer && set_led(self, longer) == 0) {
        value = compute(self, key, call, outcome, asked_ns);
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        if (set_led(self, led) < 0) Py_CLEAR(value);
        if (type) PyErr_Restore(type, error, traceback);
    }
    Py_XDECREF(longer);
    Py_XDECREF(led);
    return value;
}

PyObject *lead(PyObject *object, PyObject *key, call_of call) {
    leader *self = (leader *)object;
    /* First, as most that is asked for here has a value: a small one, which recall.c does not read. */
    if (keep_why_absent(self->keeper, key) < 0) return NULL;
    const uint64_t asked_ns = os_now_ns();
    PyObject *flight = take_off(self, key);
    if (!flight) return NULL;
    const int outcome = keep_why_absent(self->keeper, key); /* others may have run meanwhile */
    PyObject *value = outcome < 0 ? NULL : compute_in(self, flight, key, call, outcome, asked_ns);
    if (land(self, key, flight, value) < 0) Py_CLEAR(value);
    Py_DECREF(flight);
    return value;
}

bool is_leader(PyObject *object) { return Py_TYPE(object) == leader_type; }

static PyObject *leader_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    PyObject *key, *function;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "lead(key, function)");
    if (!PyArg_ParseTuple(args, "OO", &key, &function)) return NULL;
    PyObject *nothing = PyTuple_New(0);
    if (!nothing) return NULL;
    PyObject *value = lead(object, key, (call_of){function, nothing, NULL});
    Py_DECREF(nothing);
    return value || PyErr_Occurred() ? value : Py_NewRef(((leader *)object)->absent);
}

static PyObject *leader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"keeper", "keep_slowly", "under_way", "flight", "led", "absent", "account", NULL};
    PyObject *keeper, *keep_slowly, *under_way, *flight, *led, *absent;
    unsigned long long account;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!OOOK", names, &keeper, &keep_slowly, &PyDict_Type,
                                     &under_way, &flight, &led, &absent, &account))
        return NULL;
    if (!is_keeper(keeper)) return PyErr_Format(PyExc_TypeError, "keeper must be a Keeper");
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    leader *self = (leader *)allocate(type, 0);
    if (!self) return NULL;
    self->keeper = Py_NewRef(keeper);
    self->keep_slowly = Py_NewRef(keep_slowly);
    self->under_way = Py_NewRef(under_way);
    self->flight = Py_NewRef(flight);
    self->absent = Py_NewRef(absent);
    self->account = (vrange_account *)(uintptr_t)account;
    self->get_led = PyObject_GetAttrString(led, "get");
    self->set_led = PyObject_GetAttrString(led, "set");
    if (!self->get_led || !self->set_led) Py_CLEAR(self);
    return (PyObject *)self;
}

static const size_t references[] = {
    offsetof(leader, keeper), offsetof(leader, keep_slowly), offsetof(leader, under_way),
    offsetof(leader, flight), offsetof(leader, get_led), offsetof(leader, set_led),
    offsetof(leader, absent), 0};

static int leader_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int leader_clear(PyObject *object) {
    return clear_references(object, references);
}

static void leader_dealloc(PyObject *object) { free_collected(object, references); }

int lead_add_type(PyObject *module) {
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Leader(keeper, keep_slowly, under_way, flight, led, absent, account)\n\n"
                    "leader(key, function): what function() returns, computed by nobody else meanwhile and "
                    "kept, for a key without a value; or `absent`, and nothing was done or counted."},
        {Py_tp_new, leader_new},
        {Py_tp_dealloc, leader_dealloc},
        {Py_tp_traverse, leader_traverse},
        {Py_tp_clear, leader_clear},
        {Py_tp_call, leader_call},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Leader",
        .basicsize = sizeof(leader),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    setdefault_name = PyUnicode_InternFromString("setdefault");
    landed_name = PyUnicode_InternFromString("landed");
    waiters_name = PyUnicode_InternFromString("waiters");
    land_name = PyUnicode_InternFromString("land");
    if (!setdefault_name || !landed_name || !waiters_name || !land_name) return -1;
    leader_type = add_type(module, &spec);
    return leader_type ? 0 : -1;
}
