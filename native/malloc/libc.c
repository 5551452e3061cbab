/* glibc's own malloc; see libc.h. */
#define _GNU_SOURCE
#include "malloc/libc.h"

#include <dlfcn.h>
#include <gnu/lib-names.h>
#include <stdatomic.h>
#include <string.h>

static struct {
    size_t (*_Atomic usable_size)(void *);
    void *(*_Atomic aligned_alloc)(size_t, size_t);
} libc;

/* dlsym may allocate. Then it is served by the functions that need no look-up. */
static void *find(void *file, const char *name) { return dlsym(file, name); }

bool libc_is_replaced(void) {
    void *file = dlopen(LIBC_SO, RTLD_LAZY | RTLD_NOLOAD);
    if (!file) return true;
    const bool is_own = find(file, "__libc_malloc") == (void *)__libc_malloc &&
                        find(file, "__libc_free") == (void *)__libc_free;
    dlclose(file);
    return !is_own;
}

bool libc_find(void) {
    if (atomic_load(&libc.usable_size)) return true;
    /* The blocks of an allocator that replaces these names are known to its own functions only. */
    void *file = libc_is_replaced() ? RTLD_NEXT : dlopen(LIBC_SO, RTLD_LAZY | RTLD_NOLOAD);
    if (!file) return false;
    size_t (*usable_size)(void *);
    void *(*aligned)(size_t, size_t);
    *(void **)&usable_size = find(file, "malloc_usable_size");
    *(void **)&aligned = find(file, "aligned_alloc");
    if (file != RTLD_NEXT) dlclose(file);
    if (!usable_size || !aligned) return false;
    atomic_store(&libc.aligned_alloc, aligned);
    atomic_store(&libc.usable_size, usable_size);
    return true;
}

size_t libc_usable_size(void *block) {
    size_t (*usable_size)(void *) = atomic_load_explicit(&libc.usable_size, memory_order_relaxed);
    if (!usable_size && libc_find()) usable_size = atomic_load(&libc.usable_size);
    return usable_size ? usable_size(block) : 0;
}

void *libc_aligned_alloc(size_t alignment, size_t bytes) {
    void *(*aligned)(size_t, size_t) = atomic_load_explicit(&libc.aligned_alloc, memory_order_relaxed);
    return aligned ? aligned(alignment, bytes) : __libc_memalign(alignment, bytes);
}
