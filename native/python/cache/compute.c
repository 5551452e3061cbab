/* Leading: a value that is nowhere is computed and kept without a Python frame of ours.
 *
 * Most computations are begun with nobody at the same key, and nobody comes to wait: that is all this does,
 * and what it does not do it leaves undone, for Python to begin again. Why natively, store.c says. */
#include "python/hit.h"

#include <stddef.h>

#include "os/os.h"
#include "counters/stats.h"

typedef struct {
    PyObject_HEAD
    PyObject *keeper;
    PyObject *keep_slowly; /* called with key, value, cost and flight where the keeper doesn't; what is returned */
    PyObject *flights;     /* flight.c */
    PyObject *absent;
    vrange_account *account;
} leader;

typedef struct {
    leader *by;
    PyObject *key;
    call_of call;
    uint64_t asked_ns;
} lead_of;

static PyTypeObject *leader_type;

static PyObject *compute(void *context, flight *mine) {
    const lead_of *this = context;
    leader *self = this->by;
    PyObject *key = this->key;
    const call_of call = this->call;
    const int outcome = keep_why_absent(self->keeper, key); /* others may have run meanwhile */
    if (outcome < 0) return NULL;
    stats_request_with_gil(self->account, outcome);
    stopwatch watch = stopwatch_start();
    PyObject *computed = PyObject_Call(call.function, call.args, call.kwargs);
    if (!computed) return NULL;
    const time_taken took = stopwatch_read(&watch);
    PyObject *kept = keep(self->keeper, key, computed, took.cost_ns, (PyObject *)mine);
    if (!kept && !PyErr_Occurred())
        kept = PyObject_CallFunction(self->keep_slowly, "OOKO", key, computed,
                                     (unsigned long long)took.cost_ns, (PyObject *)mine);
    Py_DECREF(computed);
    if (!kept) return NULL;
    vrange_account_regenerated(self->account, took.passed_ns);
    if (outcome == VRANGE_REQUEST_PURGED)
        vrange_latency_record(VRANGE_KIND_CACHE, VRANGE_REALLOCATE_PURGED, os_now_ns() - this->asked_ns);
    return kept;
}

PyObject *lead(PyObject *object, PyObject *key, call_of call) {
    leader *self = (leader *)object;
    /* First, as most that is asked for here has a value: a small one, which lookup.c does not read. */
    if (keep_why_absent(self->keeper, key) < 0) return NULL;
    lead_of this = {self, key, call, os_now_ns()};
    flight *other;
    PyObject *value = fly(self->flights, key, false, compute, &this, &other);
    Py_XDECREF((PyObject *)other);
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
    static char *names[] = {"keeper", "keep_slowly", "flights", "absent", "account", NULL};
    PyObject *keeper, *keep_slowly, *flights, *absent;
    unsigned long long account;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOK", names, &keeper, &keep_slowly, &flights, &absent,
                                     &account))
        return NULL;
    if (!is_keeper(keeper)) return PyErr_Format(PyExc_TypeError, "keeper must be a Keeper");
    if (!is_flights(flights)) return PyErr_Format(PyExc_TypeError, "flights must be Flights");
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    leader *self = (leader *)allocate(type, 0);
    if (!self) return NULL;
    self->keeper = Py_NewRef(keeper);
    self->keep_slowly = Py_NewRef(keep_slowly);
    self->flights = Py_NewRef(flights);
    self->absent = Py_NewRef(absent);
    self->account = (vrange_account *)(uintptr_t)account;
    return (PyObject *)self;
}

static const size_t references[] = {offsetof(leader, keeper), offsetof(leader, keep_slowly),
                                    offsetof(leader, flights), offsetof(leader, absent), 0};

static int leader_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int leader_clear(PyObject *object) {
    return clear_references(object, references);
}

static void leader_dealloc(PyObject *object) { free_collected(object, references); }

int lead_add_type(PyObject *module) {
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Leader(keeper, keep_slowly, flights, absent, account)\n\n"
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
    leader_type = add_type(module, &spec);
    return leader_type ? 0 : -1;
}
