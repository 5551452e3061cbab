/* Lookups of a shared cache; see shared_reads.h.
 *
 * Most lookups find a value that this process has itself: one word of the index says whether it is still the
 * key's. Others find a small value in the index, or a large one in the memory of another process, which one
 * system call copies to where it stays: into the bytes object that the caller gets. Its head, which no caller
 * gets, goes elsewhere.
 *
 * Whatever is not in order is left to Python (values.py), which looks once more: a record of an exception, a
 * value that is gone or can't be decoded, one that this process has under a key that it did not know, and one
 * that is worth a copy here. */
#include "python/cache/shared_reads.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

#include "counters/stats.h"
#include "pressure/room_for_copy.h"
#include "python/cache/blob.h"
#include "python/cache/cache.h"
#include "python/cache/known.h"
#include "python/cache/lookup.h"

#define FORM_BYTES_MOST 1024
#define READS_COUNTED (1 << 20)

typedef struct {
    PyObject_HEAD
    cache_core *core;
    PyObject *known;  /* dict: key to Known */
    PyObject *decode; /* called with a Known, the stamp and the value's bytes */
    PyObject *load;   /* called with a pickle */
    vrange_shared *index; /* NULL: none is open */
    const _Atomic uint64_t *words;
    Py_ssize_t near_share; /* a value with this part of the hot front's bound is worth a copy */
} shared_reads;

static PyTypeObject *reads_type;

bool is_shared_reads(PyObject *object) { return PyObject_TypeCheck(object, reads_type); }

/* ---- what this process has itself -------------------------------------------------------------- */

static bool is_current(const shared_reads *self, const known_key *k) {
    return k->stamp && self->index && k->index == self->index && k->identity &&
           k->identity == vrange_shared_identity(self->index) && atomic_load(&self->words[k->at]) == k->word;
}

static void count_read(known_key *k) {
    if (k->reads < READS_COUNTED) k->reads++;
}

/* Absence is not counted: the caller looks further. NULL without an error set: it is not here. */
static PyObject *find_here(shared_reads *self, known_key *k) {
    looked_up found = {0};
    key_hash hash;
    if (!is_current(self, k)) return NULL;
    PyObject *stamp = Py_NewRef(k->stamp); /* the lookup may run Python, which may change it */
    int result = LOOKUP_FAILED;
    if (hash_key(stamp, &hash)) result = core_look_up(self->core, stamp, hash, &found);
    Py_DECREF(stamp);
    if (result != LOOKUP_FOUND) return NULL;
    count_read(k);
    return found.value;
}

/* ---- what is elsewhere -------------------------------------------------------------------------- */

static bool is_head_of(const char *bytes, const known_key *k, const vrange_shared_found *found,
                       blob_head *head) {
    memcpy(head, bytes, sizeof *head);
    const size_t form_bytes = (size_t)PyBytes_Size(k->form);
    return head->stamp == found->stamp && head->form_bytes == form_bytes && head->buffers == 0 &&
           memcmp(head->digest, PyBytes_AsString(k->digest), VRANGE_DIGEST_BYTES) == 0 &&
           memcmp(bytes + sizeof *head, PyBytes_AsString(k->form), form_bytes) == 0;
}

/* Steals the body, a bytes object. */
static PyObject *decode_body(const shared_reads *self, uint32_t how, PyObject *body) {
    PyObject *value = NULL;
    if (how == BLOB_BYTES) return body;
    if (how == BLOB_TEXT)
        value = PyUnicode_DecodeUTF8(PyBytes_AsString(body), PyBytes_Size(body), "surrogatepass");
    else if (how == BLOB_PICKLE) value = PyObject_CallFunctionObjArgs(self->load, body, NULL);
    Py_DECREF(body);
    return value;
}

/* Decodes a value with buffers over all its bytes. Python checks its head. Steals the bytes; NULL stays
 * NULL. */
static PyObject *decode_over(const shared_reads *self, known_key *k, const vrange_shared_found *found,
                             PyObject *bytes) {
    PyObject *stamp = bytes ? PyLong_FromUnsignedLongLong(found->stamp) : NULL, *value = NULL;
    if (stamp) value = PyObject_CallFunctionObjArgs(self->decode, (PyObject *)k, stamp, bytes, NULL);
    Py_XDECREF(stamp);
    Py_XDECREF(bytes);
    return value;
}

static PyObject *in_payload(const shared_reads *self, known_key *k, const vrange_shared_found *found,
                            const char *payload) {
    blob_head head;
    const size_t before = sizeof head + (size_t)PyBytes_Size(k->form);
    if (found->payload_bytes < before) return NULL;
    const bool is_right = is_head_of(payload, k, found, &head);
    if (head.buffers) {
        PyObject *whole = PyBytes_FromStringAndSize(payload, (Py_ssize_t)found->payload_bytes);
        return decode_over(self, k, found, whole);
    }
    if (!is_right || head.body_bytes != found->payload_bytes - before) return NULL;
    PyObject *body = PyBytes_FromStringAndSize(payload + before, (Py_ssize_t)head.body_bytes);
    return body ? decode_body(self, head.how, body) : NULL;
}

static int copy_out(const shared_reads *self, const vrange_shared_found *found, char *head, size_t head_bytes,
                    PyObject *to) {
    char *memory = PyBytes_AsString(to);
    if (found->bytes < LET_OTHERS_RUN_BYTES)
        return vrange_shared_read(self->index, found, head, head_bytes, memory);
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = vrange_shared_read(self->index, found, head, head_bytes, memory);
    Py_END_ALLOW_THREADS
    return result;
}

/* Room for the copy of a large value, which other processes can read where it is. */
static bool take_room(uint64_t bytes) {
    int result = VRANGE_OK;
    if (bytes < ROOM_BYTES) return true;
    Py_BEGIN_ALLOW_THREADS
    result = vrange_room_take(bytes);
    Py_END_ALLOW_THREADS
    return result == VRANGE_OK;
}

static PyObject *in_owner(const shared_reads *self, known_key *k, const vrange_shared_found *found,
                          uint32_t how) {
    char before[sizeof(blob_head) + FORM_BYTES_MOST];
    blob_head head;
    const bool is_whole = how == BLOB_PARTS; /* its buffers stay where they are, and it is decoded over them */
    const size_t form_bytes = (size_t)PyBytes_Size(k->form);
    const size_t head_bytes = is_whole ? 0 : sizeof head + form_bytes;
    if (form_bytes > FORM_BYTES_MOST || found->bytes < head_bytes || found->bytes > PY_SSIZE_T_MAX / 2)
        return NULL;
    const uint64_t body_bytes = found->bytes - head_bytes;
    if (!take_room(found->bytes)) return NULL;
    PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)body_bytes);
    int result = body ? copy_out(self, found, before, head_bytes, body) : VRANGE_GONE;
    if (found->bytes >= ROOM_BYTES) vrange_room_give(found->bytes);
    if (result == VRANGE_OK && is_whole) return decode_over(self, k, found, body);
    if (result == VRANGE_OK && is_head_of(before, k, found, &head) && head.body_bytes == body_bytes &&
        head.how == how)
        return decode_body(self, how, body);
    Py_XDECREF(body);
    return NULL;
}

/* A function of its own, so that its buffer is on the stack only while it runs. */
__attribute__((noinline)) static PyObject *find_elsewhere(shared_reads *self, known_key *k) {
    char payload[VRANGE_PAYLOAD_MOST];
    vrange_shared_found found;
    const unsigned char *digest = (const unsigned char *)PyBytes_AsString(k->digest);
    if (!self->index || k->stamp) return NULL; /* what this process has of a former record has to go first */
    if (vrange_shared_find(self->index, digest, payload, sizeof payload, &found) != VRANGE_OK) return NULL;
    const Py_ssize_t near = self->near_share ? self->core->hot_limit / self->near_share : 0;
    if (k->reads >= k->near_at && found.bytes <= (uint64_t)near) return NULL;
    PyObject *value = NULL;
    if (found.kind == VRANGE_RECORD_VALUE) value = in_payload(self, k, &found, payload);
    else if (found.kind == VRANGE_RECORD_RANGE && found.owner != vrange_shared_identity(self->index) &&
             found.payload_bytes > VRANGE_NOTE_AT)
        value = in_owner(self, k, &found, (unsigned char)payload[VRANGE_NOTE_AT]);
    if (!value) return NULL;
    count_read(k);
    stats_request_with_gil(self->core->account, VRANGE_REQUEST_PEER);
    return value;
}

/* Errors of the value are left to Python, which decodes it once more. Those of signal handlers are not. */
static PyObject *find_known(shared_reads *self, known_key *k) {
    Py_INCREF((PyObject *)k);
    PyObject *value = find_here(self, k);
    if (!value && !PyErr_Occurred() && !self->core->closed) {
        value = find_elsewhere(self, k);
        if (!value && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
    }
    Py_DECREF((PyObject *)k);
    return value;
}

PyObject *shared_reads_find(PyObject *object, PyObject *key) {
    shared_reads *self = (shared_reads *)object;
    PyObject *known = PyDict_GetItemWithError(self->known, key);
    if (!known || !is_known(known)) return NULL;
    return find_known(self, (known_key *)known);
}

/* ---- the type ---------------------------------------------------------------------------------- */

#define READS(object) ((shared_reads *)(object))
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static bool takes_known(PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted, const char *usage) {
    if (count == wanted && is_known(args[0])) return true;
    PyErr_SetString(PyExc_TypeError, usage);
    return false;
}

static PyObject *or_default(PyObject *value, PyObject *standard) {
    return value || PyErr_Occurred() ? value : Py_NewRef(standard);
}

static PyObject *reads_get(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "get(key, default)");
    return or_default(shared_reads_find(object, args[0]), args[1]);
}

static PyObject *reads_find(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes_known(args, count, 2, "find(known, default)")) return NULL;
    return or_default(find_known(READS(object), (known_key *)args[0]), args[1]);
}

static PyObject *reads_here(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    if (!takes_known(args, count, 2, "here(known, default)")) return NULL;
    return or_default(find_here(READS(object), (known_key *)args[0]), args[1]);
}

static PyObject *reads_is_current(PyObject *object, PyObject *known) {
    if (!takes_known(&known, 1, 1, "is_current(known)")) return NULL;
    return PyBool_FromLong(is_current(READS(object), (known_key *)known));
}

static PyObject *reads_note(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    shared_reads *self = READS(object);
    size_t words = 0;
    if (!takes_known(args, count, 4, "note(known, at, word, stamp)")) return NULL;
    known_key *k = (known_key *)args[0];
    const uint64_t at = PyLong_AsUnsignedLongLong(args[1]);
    const uint64_t word = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred()) return NULL;
    if (self->index) vrange_shared_words(self->index, &words);
    if (at >= words) return PyErr_Format(PyExc_ValueError, "the index has %zu words", words);
    k->index = self->index;
    k->identity = vrange_shared_identity(self->index);
    k->at = at;
    k->word = word;
    PyObject *before = k->stamp;
    k->stamp = Py_NewRef(args[3]);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *reads_use_index(PyObject *object, PyObject *address) {
    size_t words;
    const unsigned long long at = PyLong_AsUnsignedLongLong(address);
    if (PyErr_Occurred()) return NULL;
    READS(object)->index = (vrange_shared *)(uintptr_t)at;
    if (at) READS(object)->words = (const _Atomic uint64_t *)vrange_shared_words(READS(object)->index, &words);
    Py_RETURN_NONE;
}

static PyObject *reads_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *core, *decode, *load;
    Py_ssize_t near_share;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "SharedReads takes no keywords");
    if (!PyArg_ParseTuple(args, "OOOn", &core, &decode, &load, &near_share)) return NULL;
    if (!is_core(core)) return PyErr_Format(PyExc_TypeError, "core must be a CacheCore, not %R", core);
    shared_reads *self = (shared_reads *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    self->known = PyDict_New();
    self->core = (cache_core *)Py_NewRef(core);
    self->decode = Py_NewRef(decode);
    self->load = Py_NewRef(load);
    self->near_share = near_share;
    if (self->known) return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

static const size_t references[] = {offsetof(shared_reads, core), offsetof(shared_reads, known),
                                    offsetof(shared_reads, decode), offsetof(shared_reads, load), 0};

static int reads_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

/* A finalizer in the same cycle may still look up: it finds no key. */
static int reads_clear(PyObject *object) {
    PyDict_Clear(READS(object)->known);
    return 0;
}

static void reads_dealloc(PyObject *object) { free_collected(object, references); }

int shared_reads_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"get", FAST(reads_get), METH_FASTCALL, "get(key, default): the value of a key that is in `known`."},
        {"find", FAST(reads_find), METH_FASTCALL, "find(known, default): the value of a known key."},
        {"here", FAST(reads_here), METH_FASTCALL,
         "here(known, default): the value of a known key, if this process has it itself."},
        {"is_current", reads_is_current, METH_O, "is_current(known): whether its stamp is still the key's."},
        {"note", FAST(reads_note), METH_FASTCALL,
         "note(known, at, word, stamp): this process has the value; it is the key's while words[at] is word."},
        {"use_index", reads_use_index, METH_O, "use_index(address): where to look; 0: nowhere."},
        {0}};
    static PyMemberDef members[] = {
        {"known", T_OBJECT_EX, offsetof(shared_reads, known), READONLY, "key to Known"},
        {"near_share", T_PYSSIZET, offsetof(shared_reads, near_share), 0,
         "a value with at most this part of the hot front's bound is worth a copy; 0: none is"},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "SharedReads(core, decode, load, near_share): lookups of a shared cache.\n\n"
                    "decode(known, stamp, bytes) returns a value that has buffers, and load(bytes) one that "
                    "was pickled. A value of more than a near_share-th of the hot front's bound is not "
                    "worth a copy."},
        {Py_tp_new, reads_new},
        {Py_tp_dealloc, reads_dealloc},
        {Py_tp_traverse, reads_traverse},
        {Py_tp_clear, reads_clear},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.SharedReads",
                               .basicsize = sizeof(shared_reads),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    static const struct {
        const char *name;
        long number;
    } codes[] = {{"BLOB_PICKLE", BLOB_PICKLE},
                 {"BLOB_BYTES", BLOB_BYTES},
                 {"BLOB_TEXT", BLOB_TEXT},
                 {"BLOB_PARTS", BLOB_PARTS}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (PyModule_AddIntConstant(module, codes[i].name, codes[i].number) < 0) return -1;
    }
    if (PyModule_AddStringConstant(module, "BLOB_HEAD", BLOB_HEAD_FORMAT) < 0) return -1;
    reads_type = add_type(module, &spec);
    return reads_type ? 0 : -1;
}
