/* The provider of the interpreter's arenas, wrapped, so that each arena is recorded as it comes and goes.
 *
 * pymalloc does not publish its list of arenas, but it accepts a provider for them
 * (PyObject_SetArenaAllocator). This file wraps the provider that it finds, which goes on allocating and
 * freeing. Arenas from before the wrapping are unknown, and are left alone. The wrapping is never undone:
 * pymalloc calls it until the process ends, when no Python is left to undo it. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdatomic.h>

#include "heap/pymalloc_arenas.h"
#include "python/arena_observer.h"
#include "python/heap/pymalloc_hook.h"

/* As in CPython's cpython/objimpl.h: outside the limited API, and unchanged since 3.4. */
typedef struct {
    void *context;
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *address, size_t bytes);
} arena_provider;

static arena_provider wrapped;
static arena_observer observe; /* NULL: none */
static void (*get_provider)(arena_provider *);
static _Atomic bool watching;
static _Atomic uint64_t usual_sized, double_sized; /* arenas that were ever allocated */
static PyThreadState *(*current_thread_state)(void); /* unlike the public one, returns NULL if there is none */

int64_t pymalloc_interpreter(void) {
    if (Py_Version < 0x030c0000) return 0; /* all interpreters share one GIL and its pools */
    PyThreadState *thread = current_thread_state ? current_thread_state() : NULL;
    return thread ? PyInterpreterState_GetID(PyThreadState_GetInterpreter(thread)) : -1;
}

/* The interpreter also allocates its frame stacks here, of 16 KiB and more. If one has exactly an arena's
 * size, pymalloc_trim.c tells it from an arena. */
static void *alloc_and_note(void *context, size_t bytes) {
    (void)context;
    if (observe && !observe((ptrdiff_t)bytes)) return NULL;
    void *address = wrapped.alloc(wrapped.context, bytes);
    if (!address) {
        if (observe) observe(-(ptrdiff_t)bytes);
        return NULL;
    }
    if (!watching) return address;
    if (bytes == 2 * PYMALLOC_ARENA_BYTES) atomic_fetch_add(&double_sized, 1);
    if (bytes != PYMALLOC_ARENA_BYTES) return address;
    atomic_fetch_add(&usual_sized, 1);
    pymalloc_note((uintptr_t)address, pymalloc_interpreter());
    return address;
}

static void forget_and_free(void *context, void *address, size_t bytes) {
    (void)context;
    /* Forget it before it is free: another thread may map something else there a moment later. */
    if (watching && bytes == PYMALLOC_ARENA_BYTES) pymalloc_forget((uintptr_t)address);
    wrapped.free(wrapped.context, address, bytes);
    if (observe) observe(-(ptrdiff_t)bytes);
}

bool pymalloc_is_watching(void) { return watching; }

static const char *wrap(void) {
    if (wrapped.alloc) return NULL;
    void (*set)(arena_provider *);
    *(void **)&get_provider = dlsym(RTLD_DEFAULT, "PyObject_GetArenaAllocator");
    *(void **)&set = dlsym(RTLD_DEFAULT, "PyObject_SetArenaAllocator");
    *(void **)&current_thread_state = dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked"); /* since 3.13 */
    if (!current_thread_state)
        *(void **)&current_thread_state = dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
    if (!get_provider || !set || !current_thread_state)
        return "this interpreter does not export its arena provider (no PyObject_SetArenaAllocator)";
    get_provider(&wrapped);
    if (!wrapped.alloc || !wrapped.free) {
        wrapped.alloc = NULL;
        return "this interpreter has no arena provider";
    }
    set(&(arena_provider){NULL, alloc_and_note, forget_and_free});
    return NULL;
}

const char *pymalloc_watch(void) {
    const char *refusal = wrap();
    if (!refusal) watching = true;
    return refusal;
}

static const char *report_to(arena_observer observer) {
    const char *refusal = wrap();
    if (!refusal) observe = observer;
    return refusal;
}

const char *pymalloc_watch_refusal(void) {
    if (!watching) return "arenas are not recorded";
    arena_provider now;
    get_provider(&now);
    /* An arena that another provider frees would stay in the list, and a trim would read unmapped memory. */
    if (now.alloc != alloc_and_note || now.free != forget_and_free)
        return "another arena provider was installed meanwhile (PyObject_SetArenaAllocator)";
    if (usual_sized == 0 && double_sized > 0)
        return PYMALLOC_LARGE_ARENAS;
    return NULL;
}

__attribute__((constructor)) static void register_reports(void) { arena_observer_register(report_to); }
