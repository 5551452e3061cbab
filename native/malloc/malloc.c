/* malloc for any program, preloaded: large blocks are the heap's, small ones glibc's.
 *
 * Before the constructor has run, and wherever the heap can't serve a request (heap.h), glibc does; an address
 * tells whose a block is. So every function here works at any time: in the dynamic linker, in constructors and
 * destructors of others, in fork handlers, in a child, in a signal handler.
 *
 * glibc's own functions are called by the names that glibc exports for this purpose. dlsym would allocate to
 * find them, and would find another library's where several are preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>

#include "heap/heap.h"
#include "malloc/libc.h"
#include "malloc/step_aside.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "process/fork_pause.h"
#include "reserve/return_space.h"

#define PUBLIC __attribute__((visibility("default")))
#define UNLIKELY(condition) __builtin_expect(condition, 0)
/* Apart from what small blocks run: otherwise their calls would save and restore its registers. */
#define APART __attribute__((noinline, cold))
#define PYTHON_THAT_COUNTS 0x030c0000ul
#define CALLER __builtin_return_address(0)

PUBLIC void *malloc(size_t bytes);
PUBLIC void free(void *block);
PUBLIC void *calloc(size_t count, size_t bytes);
PUBLIC void *realloc(void *block, size_t bytes);
PUBLIC void *reallocarray(void *block, size_t count, size_t bytes);
PUBLIC void *memalign(size_t alignment, size_t bytes);
PUBLIC void *aligned_alloc(size_t alignment, size_t bytes);
PUBLIC int posix_memalign(void **out, size_t alignment, size_t bytes);
PUBLIC void *valloc(size_t bytes);
PUBLIC void *pvalloc(size_t bytes);
PUBLIC size_t malloc_usable_size(void *block);
PUBLIC void free_sized(void *block, size_t bytes);
PUBLIC void free_aligned_sized(void *block, size_t alignment, size_t bytes);

/* The name `malloc` stands for whichever library's malloc the program got. These stand for ours. */
extern __typeof(malloc) own_malloc __attribute__((alias("malloc"), visibility("hidden")));
extern __typeof(free) own_free __attribute__((alias("free"), visibility("hidden")));

enum {
    WAITING, /* for the constructor */
    READY,
    OPENING,
    OPEN,
    REFUSED, /* glibc serves everything */
    ASIDE,   /* the same from now on, without a system call of vrange's */
};

static _Atomic int state = WAITING;

static struct {
    _Atomic uintptr_t from;
    _Atomic size_t bytes;
} spans[HEAP_SPANS], reach; /* from the first span to the end of the last: glibc's blocks pay one comparison */

static struct {
    uintptr_t from;
    size_t bytes;
} linker;

/* ---- opening ----------------------------------------------------------------------------------- */

static void note_spans(void) {
    heap_span found[HEAP_SPANS];
    uintptr_t from = UINTPTR_MAX, end = 0;
    heap_spans(found);
    for (int i = 0; i < HEAP_SPANS; i++) {
        atomic_store_explicit(&spans[i].from, found[i].from, memory_order_relaxed);
        atomic_store_explicit(&spans[i].bytes, found[i].bytes, memory_order_release);
        if (!found[i].bytes) continue;
        if (found[i].from < from) from = found[i].from;
        if (found[i].from + found[i].bytes > end) end = found[i].from + found[i].bytes;
    }
    if (from >= end) return;
    atomic_store_explicit(&reach.from, from, memory_order_relaxed);
    atomic_store_explicit(&reach.bytes, end - from, memory_order_release);
}

static int try_to_open(void) {
    /* Where the machine promises no more memory than it has, what the heap keeps would be lacking elsewhere. */
    const int result = os_commits_strictly() ? -ENOMEM : heap_open(NULL);
    if (result == 0) heap_use_huge_pages(os_always_has_huge_pages());
    return result;
}

/* Returns whether the heap is open. A thread that comes while another one opens it is served by glibc. */
static bool open_heap(int now) {
    if (now != READY || !atomic_compare_exchange_strong(&state, &now, OPENING)) return false;
    /* It reads files, in which a thread may be cancelled. malloc is no cancellation point. */
    const int before = os_thread_forbid_cancel(), result = try_to_open();
    os_thread_allow_cancel(before);
    if (result < 0) {
        now = OPENING;
        atomic_compare_exchange_strong(&state, &now, result == -EAGAIN ? READY : REFUSED);
        return false;
    }
    note_spans();
    now = OPENING;
    return atomic_compare_exchange_strong(&state, &now, OPEN);
}

void malloc_step_aside(void) {
    /* Once: a filter that is set by now may kill at what this does. */
    if (atomic_load(&state) != ASIDE && heap_retire()) atomic_store(&state, ASIDE);
}

static int find_linker(struct dl_phdr_info *object, size_t size, void *base) {
    (void)size;
    if (object->dlpi_addr != (uintptr_t)base) return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_vaddr + part->p_memsz > linker.bytes)
            linker.bytes = part->p_vaddr + part->p_memsz;
    }
    linker.from = object->dlpi_addr;
    return 1;
}

static bool has_sanitizer(void) {
    static const char *const starts[] = {"__asan_init", "__msan_init", "__tsan_init", "__hwasan_init",
                                         "__lsan_init"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        if (dlsym(RTLD_DEFAULT, starts[i])) return true;
    }
    return false;
}

__attribute__((constructor)) static void begin(void) {
    /* A program with an allocator of its own, or one that is preloaded before this library. */
    if (malloc != own_malloc || free != own_free || !libc_find()) return;
    /* One that is preloaded after it, or linked to the program, and serves in glibc's place. */
    if (libc_is_replaced()) return;
    if (has_sanitizer()) {
        static const char message[] =
            "vrange: this program is built with a sanitizer, which has to serve malloc itself: run it without "
            "vrange's malloc\n";
        os_complain(message, sizeof message - 1);
        return;
    }
    const uintptr_t base = getauxval(AT_BASE);
    if (base) dl_iterate_phdr(find_linker, (void *)base);
    /* CPython 3.12 and later warn of a fork in a process with threads. */
    const unsigned long *python = dlsym(RTLD_DEFAULT, "Py_Version");
    if (python && *python >= PYTHON_THAT_COUNTS) fork_pause_always();
    atomic_store(&state, READY);
}

/* ---- blocks of the heap ------------------------------------------------------------------------ */

static APART bool is_in_span(const void *block) {
    for (int i = 0; i < HEAP_SPANS; i++) {
        const size_t bytes = atomic_load_explicit(&spans[i].bytes, memory_order_acquire);
        const uintptr_t from = atomic_load_explicit(&spans[i].from, memory_order_relaxed);
        if ((uintptr_t)block - from < bytes) return heap_has(block);
    }
    return false;
}

static inline bool is_in_reach(const void *block) {
    const size_t bytes = atomic_load_explicit(&reach.bytes, memory_order_acquire);
    const uintptr_t from = atomic_load_explicit(&reach.from, memory_order_relaxed);
    return UNLIKELY((uintptr_t)block - from < bytes);
}

static inline bool is_ours(const void *block) { return is_in_reach(block) && is_in_span(block); }

static APART void return_space(size_t bytes) {
    const int before = os_thread_forbid_cancel();
    return_space_for(bytes);
    os_thread_allow_cancel(before);
}

/* The dynamic linker frees memory of ended threads while it holds the lock that starting a thread takes, and
 * the first block that is freed to the heap starts one. So its own memory is glibc's. */
static void *take(size_t bytes, size_t *stale_bytes, const void *caller) {
    const int now = atomic_load_explicit(&state, memory_order_acquire), error = errno;
    if ((uintptr_t)caller - linker.from < linker.bytes) return NULL;
    void *block = NULL;
    if (now == OPEN || open_heap(now)) block = heap_allocate(bytes, stale_bytes);
    if (UNLIKELY(!block) && now != ASIDE) return_space(bytes); /* glibc is asked next */
    errno = error;
    return block;
}

static APART void give(void *block) {
    const int error = errno;
    heap_free(block);
    errno = error;
}

static bool is_power_of_two(size_t number) { return number && !(number & (number - 1)); }

static void *take_aligned(size_t alignment, size_t bytes, const void *caller) {
    size_t stale;
    if (bytes < HEAP_BLOCK_BYTES_LEAST || !is_power_of_two(alignment) || alignment > os_page_bytes())
        return NULL;
    return take(bytes, &stale, caller);
}

/* ---- the functions ----------------------------------------------------------------------------- */

static APART void *malloc_large(size_t bytes, const void *caller) {
    size_t stale;
    void *block = take(bytes, &stale, caller);
    return block ? block : __libc_malloc(bytes);
}

void *malloc(size_t bytes) {
    if (UNLIKELY(bytes >= HEAP_BLOCK_BYTES_LEAST)) return malloc_large(bytes, CALLER);
    return __libc_malloc(bytes);
}

void free(void *block) {
    if (is_ours(block)) give(block);
    else __libc_free(block);
}

static APART void *calloc_large(size_t count, size_t bytes, const void *caller) {
    size_t all, stale;
    if (__builtin_mul_overflow(count, bytes, &all)) return __libc_calloc(count, bytes);
    void *block = take(all, &stale, caller);
    if (!block) return __libc_calloc(count, bytes);
    const int error = errno;
    heap_clear(block, stale);
    errno = error;
    return block;
}

void *calloc(size_t count, size_t bytes) {
    size_t all;
    if (UNLIKELY(__builtin_mul_overflow(count, bytes, &all) || all >= HEAP_BLOCK_BYTES_LEAST))
        return calloc_large(count, bytes, CALLER);
    return __libc_calloc(count, bytes);
}

/* A block of the heap gets another size. On failure the old block is as it was. */
static void *resize(void *block, size_t bytes, const void *caller) {
    const size_t held = heap_block_bytes(block);
    const int error = errno;
    if (bytes >= HEAP_BLOCK_BYTES_LEAST && atomic_load_explicit(&state, memory_order_relaxed) != ASIDE) {
        const bool done = heap_resize(block, bytes);
        errno = error;
        if (done || (bytes <= held && bytes > held / 2)) return block;
    }
    size_t stale;
    const size_t kept = held < bytes ? held : bytes;
    void *other = bytes >= HEAP_BLOCK_BYTES_LEAST ? take(bytes, &stale, caller) : NULL;
    const int moved = other ? heap_move(other, block, kept) : -EINVAL;
    if (!other || moved == -ENOMEM) other = __libc_malloc(bytes);
    if (!other) {
        if (bytes > held) return NULL; /* errno is ENOMEM */
        errno = error;
        return block;
    }
    if (moved < 0) memcpy(other, block, kept);
    heap_free(block);
    errno = error;
    return other;
}

/* A block of glibc's that grows large moves to the heap once. One that is large already stays. */
static void *adopt(void *block, size_t bytes, const void *caller) {
    const size_t held = libc_usable_size(block);
    size_t stale;
    if (held >= HEAP_BLOCK_BYTES_LEAST) return NULL;
    void *adopted = take(bytes, &stale, caller);
    if (!adopted) return NULL;
    memcpy(adopted, block, held);
    __libc_free(block);
    return adopted;
}

static APART void *realloc_large(void *block, size_t bytes, const void *caller) {
    if (!is_ours(block)) {
        void *adopted = NULL;
        size_t stale;
        if (bytes >= HEAP_BLOCK_BYTES_LEAST)
            adopted = block ? adopt(block, bytes, caller) : take(bytes, &stale, caller);
        return adopted ? adopted : __libc_realloc(block, bytes);
    }
    if (bytes) return resize(block, bytes, caller);
    give(block);
    return NULL;
}

void *realloc(void *block, size_t bytes) {
    if (is_in_reach(block) || UNLIKELY(bytes >= HEAP_BLOCK_BYTES_LEAST))
        return realloc_large(block, bytes, CALLER);
    return __libc_realloc(block, bytes);
}

/* The functions below that are made of others call them by their public names: if a program brings some of
 * these functions, these have to work on its blocks. */

void *reallocarray(void *block, size_t count, size_t bytes) {
    size_t all;
    if (!__builtin_mul_overflow(count, bytes, &all)) return realloc(block, all);
    errno = ENOMEM;
    return NULL;
}

void free_sized(void *block, size_t bytes) {
    (void)bytes;
    free(block);
}

void free_aligned_sized(void *block, size_t alignment, size_t bytes) {
    (void)alignment;
    (void)bytes;
    free(block);
}

void *memalign(size_t alignment, size_t bytes) {
    void *block = take_aligned(alignment, bytes, CALLER);
    return block ? block : __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    void *block = take_aligned(alignment, bytes, CALLER);
    return block ? block : libc_aligned_alloc(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
    if (!is_power_of_two(alignment) || alignment % sizeof(void *)) return EINVAL;
    const int error = errno;
    void *block = take_aligned(alignment, bytes, CALLER);
    if (!block) block = __libc_memalign(alignment, bytes);
    errno = error;
    if (!block) return ENOMEM;
    *out = block;
    return 0;
}

void *valloc(size_t bytes) {
    void *block = take_aligned(os_page_bytes(), bytes, CALLER);
    return block ? block : __libc_valloc(bytes);
}

void *pvalloc(size_t bytes) {
    void *block = take_aligned(os_page_bytes(), bytes, CALLER);
    return block ? block : __libc_pvalloc(bytes);
}

size_t malloc_usable_size(void *block) {
    return block && is_ours(block) ? heap_block_bytes(block) : libc_usable_size(block);
}
