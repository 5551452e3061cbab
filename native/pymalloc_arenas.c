/* Which arenas the interpreter's allocator has, noted as they come and go.
 *
 * pymalloc keeps its list of arenas to itself, but lets anybody provide them (PyObject_SetArenaAllocator).
 * So the provider that is there is wrapped: it goes on allocating and freeing, and each arena is noted
 * with the interpreter it was for. From 3.12 on interpreters may have a GIL and pools of their own;
 * one that walked another's would read what is being written.
 *
 * An arena from before the wrapping is not known, and is left alone. The wrapping is for good: pymalloc
 * calls it until the process ends, when no Python is left to take it back. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include "os.h"
#include "pymalloc.h"

/* As CPython's cpython/objimpl.h has it, outside the limited API and unchanged since 3.4. */
typedef struct {
    void *context;
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *address, size_t bytes);
} arena_provider;

typedef struct {
    uintptr_t address; /* 0: empty */
    int64_t interpreter;
} slot;

#define CAPACITY_LEAST 256 /* one page */

/* A hash table with linear probing, at most half full. An own-GIL interpreter's thread may come here
 * at any time, hence the lock; nothing that may allocate Python objects runs under it. */
static struct {
    pthread_mutex_t lock;
    slot *slots;
    size_t capacity, count;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static arena_provider wrapped;
static bool watching;
static PyThreadState *(*current_thread_state)(void); /* NULL where there is none, unlike the public one */

/* ---- the table -------------------------------------------------------------------------------- */

static size_t home(uintptr_t address) {
    return ((uint64_t)address >> 12) * UINT64_C(0x9E3779B97F4A7C15) >> 20 & (table.capacity - 1);
}

static slot *find(uintptr_t address) {
    if (!table.capacity) return NULL;
    size_t at = home(address);
    while (table.slots[at].address && table.slots[at].address != address)
        at = (at + 1) & (table.capacity - 1);
    return &table.slots[at];
}

static bool grow(void) {
    const size_t old_capacity = table.capacity;
    slot *old = table.slots;
    const size_t capacity = old_capacity ? 2 * old_capacity : CAPACITY_LEAST;
    slot *fresh = os_map(capacity * sizeof *fresh);
    if (!fresh) return false;
    table.slots = fresh;
    table.capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].address) *find(old[i].address) = old[i];
    if (old) os_unreserve(old, old_capacity * sizeof *old);
    return true;
}

/* Without memory for its note an arena is one of those that are not known. */
static void note(uintptr_t address, int64_t interpreter) {
    pthread_mutex_lock(&table.lock);
    if (2 * (table.count + 1) <= table.capacity || grow()) {
        slot *place = find(address);
        if (!place->address) table.count++;
        *place = (slot){address, interpreter};
    }
    pthread_mutex_unlock(&table.lock);
}

static void forget(uintptr_t address) {
    pthread_mutex_lock(&table.lock);
    slot *place = find(address);
    if (place && place->address) {
        table.count--;
        /* Those behind it move up where the gap would cut them off from their home. */
        size_t gap = (size_t)(place - table.slots);
        for (size_t at = gap;;) {
            at = (at + 1) & (table.capacity - 1);
            if (!table.slots[at].address) break;
            size_t from_home = (at - home(table.slots[at].address)) & (table.capacity - 1);
            if (from_home < ((at - gap) & (table.capacity - 1))) continue;
            table.slots[gap] = table.slots[at];
            gap = at;
        }
        table.slots[gap].address = 0;
    }
    pthread_mutex_unlock(&table.lock);
}

uintptr_t *pymalloc_arenas_of(int64_t interpreter, size_t *count, size_t *others) {
    *count = *others = 0;
    pthread_mutex_lock(&table.lock);
    uintptr_t *arenas = malloc((table.count + 1) * sizeof *arenas);
    for (size_t i = 0; arenas && i < table.capacity; i++) {
        if (!table.slots[i].address) continue;
        if (table.slots[i].interpreter == interpreter) arenas[(*count)++] = table.slots[i].address;
        else ++*others;
    }
    pthread_mutex_unlock(&table.lock);
    return arenas;
}

bool pymalloc_is_arena_of(int64_t interpreter, uintptr_t arena) {
    pthread_mutex_lock(&table.lock);
    slot *place = find(arena);
    bool is = place && place->address && place->interpreter == interpreter;
    pthread_mutex_unlock(&table.lock);
    return is;
}

/* ---- the hook --------------------------------------------------------------------------------- */

int64_t pymalloc_interpreter(void) {
    if (Py_Version < 0x030c0000) return 0; /* all interpreters share one GIL, and its pools */
    PyThreadState *thread = current_thread_state ? current_thread_state() : NULL;
    return thread ? PyInterpreterState_GetID(PyThreadState_GetInterpreter(thread)) : -1;
}

/* The interpreter also gets the stacks of its frames here, of 16 KiB and more: pymalloc_trim.c tells
 * one of exactly an arena's size from an arena. */
static void *alloc_and_note(void *context, size_t bytes) {
    (void)context;
    void *address = wrapped.alloc(wrapped.context, bytes);
    if (address && bytes == PYMALLOC_ARENA_BYTES) note((uintptr_t)address, pymalloc_interpreter());
    return address;
}

static void forget_and_free(void *context, void *address, size_t bytes) {
    (void)context;
    /* Before it is free: another thread may have something else there a moment later. */
    if (bytes == PYMALLOC_ARENA_BYTES) forget((uintptr_t)address);
    wrapped.free(wrapped.context, address, bytes);
}

bool pymalloc_is_watching(void) { return watching; }

const char *pymalloc_watch(void) {
    if (watching) return NULL;
    void (*get)(arena_provider *), (*set)(arena_provider *);
    *(void **)&get = dlsym(RTLD_DEFAULT, "PyObject_GetArenaAllocator");
    *(void **)&set = dlsym(RTLD_DEFAULT, "PyObject_SetArenaAllocator");
    *(void **)&current_thread_state = dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked"); /* 3.13 on */
    if (!current_thread_state)
        *(void **)&current_thread_state = dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
    if (!get || !set || !current_thread_state)
        return "this interpreter does not say where its arenas come from (no PyObject_SetArenaAllocator)";
    get(&wrapped);
    if (!wrapped.alloc || !wrapped.free) return "this interpreter has no provider of arenas";
    set(&(arena_provider){NULL, alloc_and_note, forget_and_free});
    watching = true;
    return NULL;
}

/* ---- fork ------------------------------------------------------------------------------------- */

void pymalloc_before_fork(void) { pthread_mutex_lock(&table.lock); }

void pymalloc_after_fork(void) { pthread_mutex_unlock(&table.lock); }
