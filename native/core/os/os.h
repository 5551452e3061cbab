/* Every system call of the core, one function each. Nothing here knows what a range is.
 *
 * Only the files os_*.c make system calls: everything the core asks of Linux is there under a name
 * that says what for, so that the rest reads without a man page at hand and a port knows what to
 * write. Traps of single calls are told where they are met. A function that can fail returns 0 or a
 * negative errno; EINTR and EAGAIN are dealt with inside. */
#ifndef VRANGE_OS_H
#define VRANGE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "os/exported.h"

size_t os_page_bytes(void) EXPORTED(os_page_bytes);
uint64_t os_now_ns(void) EXPORTED(os_now_ns);
/* The same to a few milliseconds, for a fifth of the time. */
uint64_t os_now_coarse_ns(void) EXPORTED(os_now_coarse_ns);
uint64_t os_thread_cpu_ns(void) EXPORTED(os_thread_cpu_ns);
/* How often this thread has waited, for whatever. */
uint64_t os_thread_waits(void) EXPORTED(os_thread_waits);
void os_sleep_ns(uint64_t nanoseconds);
void os_yield(void) EXPORTED(os_yield);

/* Address space without memory behind it: inaccessible, not counted by overcommit. NULL: refused. */
void *os_reserve(size_t bytes);
/* The same, beginning at a multiple of `alignment`, a power of two. */
void *os_reserve_aligned(size_t bytes, size_t alignment);
/* How much address space the process may have (RLIMIT_AS); UINT64_MAX: as much as there is. */
uint64_t os_address_space_limit(void) EXPORTED(os_address_space_limit);
/* How much writable memory it may have (RLIMIT_DATA), likewise. */
uint64_t os_data_limit(void);
int os_commit(void *address, size_t bytes);
/* Readable and writable, as a part of what os_commit was told of: nothing is said of huge pages.
 * Async-signal-safe. */
int os_open(void *address, size_t bytes);
int os_unreserve(void *address, size_t bytes);

/* Zeroed memory for bookkeeping, outside every arena. */
void *os_map(size_t bytes);
void *os_map_aligned(size_t bytes, size_t alignment);
/* Puts fresh zeroed memory in the place of what is mapped there. */
int os_map_over(void *address, size_t bytes);

/* The same for huge pages, where the kernel has some. */
#define OS_HUGE_BYTES ((size_t)2 << 20)
void *os_map_huge(size_t count);
/* A file that maps to zeros and is shared with whoever maps it too; -EEXIST where there is one. Holes
 * in it have no memory behind them: os_populate first, a touch may be SIGBUS. */
int os_share(const char *path, size_t bytes, void **out);
/* Puts such a file that there is in the place of what is mapped there. */
int os_share_over(const char *path, size_t bytes, void *place);
/* Puts memory behind a part of such a file, for kernels without MADV_POPULATE_WRITE. */
int os_allocate(const char *path, uint64_t offset, size_t bytes);
/* Puts a mapping in another's place, which every thread sees at once. */
int os_replace(void *fresh, void *place, size_t bytes);
/* A directory that nobody else can write to; made if it isn't there. -EPERM: it is somebody else's. */
int os_private_directory(const char *path);
int os_remove(const char *path);
void os_each_file(const char *directory, void (*visit)(const char *path, const char *name));
bool os_process_exists(uint32_t pid);

uint32_t os_process_id(void);
uint32_t os_user_id(void);
uint64_t os_process_group(void);
/* When this process began, in clock ticks since boot, and where the program's stack does. */
int os_process_start(uint64_t *ticks, uint64_t *stack);
/* What tells one PID namespace from another; 0 where the kernel doesn't say. */
uint64_t os_process_namespace(void);
void os_command(char *name, size_t bytes);
/* A number that changes when the process comes into another cgroup. */
int os_cgroup_membership(uint64_t *hash);
/* The process's own memory: what is resident and of no file. */
int os_anonymous_bytes(uint64_t *bytes);

/* Its address space, and what of that is writable and its own: what RLIMIT_AS and RLIMIT_DATA limit. */
int os_address_space(uint64_t *bytes, uint64_t *data);

int os_lazyfree(void *address, size_t bytes);

/* Puts pages that this processor has just got where the kernel can find them: until then it takes no
 * notice of advice about them. `empty` is a page that was never touched. */
void os_list_new_pages(void *empty);
/* Of several spans; an error means that it failed for one at least. */
int os_lazyfree_many(const struct iovec *spans, size_t count);
int os_discard_many(const struct iovec *spans, size_t count);
int os_populate(void *address, size_t bytes);
int os_discard(void *address, size_t bytes) EXPORTED(os_discard);
/* The child of a fork finds these pages empty, or as they are. */
int os_wipe_on_fork(void *address, size_t bytes);
int os_keep_on_fork(void *address, size_t bytes);
int os_pageout(void *address, size_t bytes);

/* One byte a page, 1 where memory is behind it. A hint: it may change before the caller looks. */
int os_residency(void *address, size_t bytes, unsigned char *pages) EXPORTED(os_residency);
/* True also where nobody tells: what is taken for lost would be thrown away. */
bool os_is_resident(void *address);
/* The lowest page of [from, to) with memory behind it; `to` where there is none. */
char *os_lowest_resident(char *from, char *to);
size_t os_resident_bytes(char *from, char *to);

/* Huge pages where the machine allows them; os_commit itself forbids them. */
bool os_has_huge_pages(void);
void os_prefer_huge_pages(void *address, size_t bytes);
void os_forbid_huge_pages(void *address, size_t bytes);

/* Any touch faults from now on. Async-signal-safe, as os_commit and os_discard are. */
int os_protect(void *address, size_t bytes);

/* Whether a touch of this page would go well. Brings it in if so. */
bool os_is_readable(void *address) EXPORTED(os_is_readable);

int os_userfault_open(int *descriptor);
int os_userfault_register(int descriptor, void *address, size_t bytes);
int os_userfault_copy(int descriptor, void *to, const void *from, size_t bytes);
/* The same, but a page that is there keeps what it has. */
int os_userfault_copy_missing(int descriptor, void *to, const void *from, size_t bytes);
/* A huge page goes from one place to another where nothing is (Linux 6.8); in small pages where the
 * other place has a page table already. */
int os_userfault_move_huge(int descriptor, void *to, void *from);
int os_userfault_zero(int descriptor, void *address, size_t bytes);

/* All of `bytes`, or -ENODATA where the file ends before. */
int os_read_at(int descriptor, void *to, size_t bytes, uint64_t offset);
/* To standard error; there is nowhere else to say why that failed. Async-signal-safe. */
void os_complain(const char *text, size_t bytes);

int os_open_to_read(const char *path, int *descriptor);
/* -EINVAL where it does not begin with one, as "max". */
int os_number_in(const char *text, uint64_t *value);
/* A file from its beginning, with a NUL behind it; what does not fit is left out. The bytes read. */
int os_read_text(int descriptor, char *text, size_t bytes);
int os_read_small(const char *path, char *text, size_t bytes); /* the same, by its name */
/* Used and all memory of the machine, what could be freed at once counted as unused. */
int os_machine_usage(uint64_t *usage, uint64_t *total);
/* Whether the machine promises no more memory than it has, and what it promised and may (vm.overcommit_memory=2). */
bool os_commits_strictly(void);
int os_commit_usage(uint64_t *usage, uint64_t *total);
void os_close(int descriptor);

#endif
