/* System calls: reserving and releasing address space, and the memory behind it. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than some of the headers that this is built against. */
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#define MADV_KEEPONFORK 19
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef PIDFD_SELF_THREAD_GROUP /* Linux 6.14; EBADF before */
#define PIDFD_SELF_THREAD_GROUP -10001
#endif

size_t os_page_bytes(void) {
    static _Atomic size_t known; /* sysconf takes as long as a tenth of a shallow deep call */
    size_t bytes = atomic_load_explicit(&known, memory_order_relaxed);
    if (bytes) return bytes;
    bytes = (size_t)sysconf(_SC_PAGESIZE);
    atomic_store_explicit(&known, bytes, memory_order_relaxed);
    return bytes;
}

/* Core dumps (core(5), gcore) leave out what vrange reserves: a dump would be as large as the address space,
 * and reading volatile pages for it would bring them back. VRANGE_DUMP=1 asks for all that is accessible. */
static bool dumps_all(void) {
    enum {
        UNKNOWN,
        NO,
        YES,
    };
    static _Atomic int asked = UNKNOWN;
    if (atomic_load_explicit(&asked, memory_order_relaxed) == UNKNOWN) {
        const char *text = getenv("VRANGE_DUMP");
        atomic_store(&asked, text && strcmp(text, "1") == 0 ? YES : NO);
    }
    return atomic_load_explicit(&asked, memory_order_relaxed) == YES;
}

void os_leave_out_of_dumps(void *address, size_t bytes) { madvise(address, bytes, MADV_DONTDUMP); }

void os_dump(void *address, size_t bytes) { madvise(address, bytes, MADV_DODUMP); }

void *os_reserve(size_t bytes) {
    void *address = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) return NULL;
    os_leave_out_of_dumps(address, bytes);
    return address;
}

void *os_reserve_aligned(size_t bytes, size_t alignment) {
    char *all = os_reserve(bytes + alignment);
    if (!all) return NULL;
    char *aligned = (char *)(((uintptr_t)all + alignment - 1) & ~((uintptr_t)alignment - 1));
    if (aligned > all) os_unreserve(all, (size_t)(aligned - all));
    /* If the length is not a multiple of the page size, the surplus begins at the next page. */
    const size_t page = os_page_bytes();
    char *end = aligned + (bytes + page - 1) / page * page;
    char *all_end = all + (bytes + alignment + page - 1) / page * page;
    if (all_end > end) os_unreserve(end, (size_t)(all_end - end));
    return aligned;
}

static uint64_t limit_of(int resource) {
    struct rlimit limit;
    if (getrlimit((unsigned)resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return (uint64_t)limit.rlim_cur;
}

uint64_t os_address_space_limit(void) { return limit_of(RLIMIT_AS); }

uint64_t os_data_limit(void) { return limit_of(RLIMIT_DATA); }

int os_commit(void *address, size_t bytes) {
    const int result = os_make_accessible(address, bytes);
    if (result < 0) return result;
    /* With THP=always the first partial MADV_FREE would split a huge page (187 us), and the kernel would
     * discard or keep the huge page as a whole. A kernel without huge pages refuses this call, and so do
     * some sandboxes. */
    madvise(address, bytes, MADV_NOHUGEPAGE);
    if (dumps_all()) os_dump(address, bytes);
    return 0;
}

int os_open(void *address, size_t bytes) {
    const int result = os_make_accessible(address, bytes);
    if (result < 0) return result;
    os_dump(address, bytes);
    return 0;
}

int os_unreserve(void *address, size_t bytes) { return munmap(address, bytes) < 0 ? -errno : 0; }

void *os_map(size_t bytes) {
    void *address = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) return NULL;
    if (os_make_accessible(address, bytes) == 0) return address;
    os_unreserve(address, bytes);
    return NULL;
}

void *os_map_larger(void *before, size_t bytes_before, size_t bytes) {
    if (!before) return os_map(bytes);
    void *address = mremap(before, bytes_before, bytes, MREMAP_MAYMOVE);
    return address == MAP_FAILED ? NULL : address;
}

void *os_map_aligned(size_t bytes, size_t alignment) {
    void *memory = os_reserve_aligned(bytes, alignment);
    if (memory && os_make_accessible(memory, bytes) < 0) {
        os_unreserve(memory, bytes);
        return NULL;
    }
    if (memory) os_dump(memory, bytes);
    return memory;
}

int os_map_over(void *address, size_t bytes) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(address, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) return -errno;
    madvise(address, bytes, MADV_NOHUGEPAGE); /* as os_commit does; failing costs only speed */
    if (!dumps_all()) os_leave_out_of_dumps(address, bytes);
    return 0;
}

void *os_map_huge(size_t count) {
    char *memory = os_reserve_aligned(count * OS_HUGE_BYTES, OS_HUGE_BYTES);
    if (!memory) return NULL;
    if (os_make_accessible(memory, count * OS_HUGE_BYTES) < 0 ||
        madvise(memory, count * OS_HUGE_BYTES, MADV_HUGEPAGE) < 0) {
        os_unreserve(memory, count * OS_HUGE_BYTES);
        return NULL;
    }
    return memory;
}

int os_protect(void *address, size_t bytes) {
    return mprotect(address, bytes, PROT_NONE) < 0 ? -errno : 0;
}

int os_replace(void *fresh, void *place, size_t bytes) {
    void *address = mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return address == MAP_FAILED ? -errno : 0;
}

int os_move_pages(void *to, void *from, size_t bytes) {
    const int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    return mremap(from, bytes, bytes, flags, to) == MAP_FAILED ? -errno : 0;
}

static int advise(void *address, size_t bytes, int advice) {
    while (madvise(address, bytes, advice) < 0) {
        if (errno != EINTR && errno != EAGAIN) return -errno;
    }
    return 0;
}

int os_lazyfree(void *address, size_t bytes) { return advise(address, bytes, MADV_FREE); }

void os_list_new_pages(void *empty) {
    /* New pages wait in a batch that belongs to each processor. MADV_FREE empties the batch of the
     * processor that it runs on, even if there is nothing to free; 0.4 us. */
    advise(empty, os_page_bytes(), MADV_FREE);
}

/* One call for the whole batch saves a TLB shoot-down for each range. Kernels before 6.13 refuse it, even
 * on the calling process itself, and 6.13 wants a pidfd. That would be one more descriptor to open and close
 * among those of the program, so on 6.13 each range costs a call as well. */
static bool advise_at_once(const struct iovec *spans, size_t count, int advice) {
    enum {
        UNTRIED,
        WORKS,
        REFUSED,
    };
    static _Thread_local int batch = UNTRIED;
    if (batch == REFUSED) return false;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += spans[i].iov_len;
    ssize_t done = syscall(SYS_process_madvise, PIDFD_SELF_THREAD_GROUP, spans, count, advice, 0);
    if (done >= 0 && (size_t)done == total) {
        batch = WORKS;
        return true;
    }
    if (batch == UNTRIED) batch = REFUSED;
    return false;
}

static int advise_many(const struct iovec *spans, size_t count, int advice,
                       int (*advise_one)(void *address, size_t bytes)) {
    int worst = 0;
    if (advise_at_once(spans, count, advice)) return 0;
    for (size_t i = 0; i < count; i++) {
        int result = advise_one(spans[i].iov_base, spans[i].iov_len);
        if (result < 0) worst = result;
    }
    return worst;
}

int os_lazyfree_many(const struct iovec *spans, size_t count) {
    return advise_many(spans, count, MADV_FREE, os_lazyfree);
}

int os_discard_many(const struct iovec *spans, size_t count) {
    return advise_many(spans, count, MADV_DONTNEED, os_discard);
}

int os_populate(void *address, size_t bytes) { return advise(address, bytes, MADV_POPULATE_WRITE); }

int os_wipe_on_fork(void *address, size_t bytes) { return advise(address, bytes, MADV_WIPEONFORK); }

int os_keep_on_fork(void *address, size_t bytes) { return advise(address, bytes, MADV_KEEPONFORK); }

int os_pageout(void *address, size_t bytes) { return advise(address, bytes, MADV_PAGEOUT); }

bool os_is_readable(void *address) {
    const uintptr_t page = (uintptr_t)address & ~((uintptr_t)os_page_bytes() - 1);
    return advise((void *)page, os_page_bytes(), MADV_POPULATE_READ) == 0;
}

/* Returns "" if the kernel has none, or none for this process. */
static const char *huge_page_setting(char *text, size_t bytes) {
    if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1) return "";
    return os_read_small("/sys/kernel/mm/transparent_hugepage/enabled", text, bytes) > 0 ? text : "";
}

bool os_has_huge_pages(void) {
    char text[64];
    const char *setting = huge_page_setting(text, sizeof text);
    return *setting && strstr(setting, "[never]") == NULL;
}

bool os_always_has_huge_pages(void) {
    char text[64];
    return strstr(huge_page_setting(text, sizeof text), "[always]") != NULL;
}

void os_forbid_huge_pages(void *address, size_t bytes) { madvise(address, bytes, MADV_NOHUGEPAGE); }

void os_prefer_huge_pages(void *address, size_t bytes) { madvise(address, bytes, MADV_HUGEPAGE); }
