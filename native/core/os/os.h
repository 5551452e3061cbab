/* Every system call of the core, one function each. Nothing here knows what a range is.
 *
 * Only the files in os/ make system calls. Everything that the core needs from Linux is here under a name
 * that says its purpose. So the other files read without a man page at hand, and a port knows what it has
 * to provide. The trap of a single call is described where the call is made. A function that can fail
 * returns 0 or a negative errno; it handles EINTR and EAGAIN itself. */
#ifndef VRANGE_OS_H
#define VRANGE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "exported.h"

size_t os_page_bytes(void) EXPORTED(os_page_bytes);
uint64_t os_now_ns(void) EXPORTED(os_now_ns);
/* The same time, to within a few milliseconds, at a fifth of the cost. */
uint64_t os_now_coarse_ns(void) EXPORTED(os_now_coarse_ns);
uint64_t os_thread_cpu_ns(void) EXPORTED(os_thread_cpu_ns);
/* How often this thread has blocked, for any reason. */
uint64_t os_thread_waits(void) EXPORTED(os_thread_waits);
void os_sleep_ns(uint64_t nanoseconds) EXPORTED(os_sleep_ns);
/* Sleeps while *word is `value`, until os_wake or for as long. It may return early. Async-signal-safe. */
void os_wait(_Atomic uint32_t *word, uint32_t value, uint64_t nanoseconds) EXPORTED(os_wait);
void os_wake(_Atomic uint32_t *word) EXPORTED(os_wake);
/* The same for a word in memory that several processes share. Returns at once if a signal arrives. */
void os_wait_shared(_Atomic uint32_t *word, uint32_t value, uint64_t nanoseconds);
void os_wake_shared(_Atomic uint32_t *word);
void os_yield(void) EXPORTED(os_yield);
/* The processor that this thread runs on, and how many there can be. */
unsigned os_processor(void);
unsigned os_processors(void);

/* Address space without memory behind it: inaccessible, not counted by overcommit, and left out of core dumps.
 * NULL if refused. */
void *os_reserve(size_t bytes);
/* The same, starting at a multiple of `alignment`, which is a power of two. */
void *os_reserve_aligned(size_t bytes, size_t alignment);
/* The same, exactly there; -EEXIST if something is mapped there. */
int os_reserve_at(void *address, size_t bytes);
/* Returns a multiple of `alignment` at which nothing is mapped for so many bytes, far from where the kernel
 * places mappings by itself. So it most likely stays free, although nothing is reserved. NULL if there is
 * none. */
char *os_quiet_place(size_t bytes, size_t alignment);
/* How much address space the process may have (RLIMIT_AS); UINT64_MAX if unlimited. */
uint64_t os_address_space_limit(void);
/* How much writable memory the process may have (RLIMIT_DATA); UINT64_MAX if unlimited. */
uint64_t os_data_limit(void);
/* Makes reserved memory readable and writable that was not used yet, for what may be offered. */
int os_commit(void *address, size_t bytes);
/* The same for any memory. It holds nothing that is needed: its first page is discarded. Locked memory does not
 * become resident by it. Async-signal-safe. */
int os_make_accessible(void *unused, size_t bytes);
/* Whether core dumps have this memory. */
void os_dump(void *address, size_t bytes);
void os_leave_out_of_dumps(void *address, size_t bytes);
/* Makes unused memory readable and writable, without advice about huge pages. Core dumps have it.
 * Async-signal-safe. */
int os_open(void *address, size_t bytes);
int os_unreserve(void *address, size_t bytes);

/* Zeroed memory for bookkeeping, outside every arena. */
void *os_map(size_t bytes);
/* Makes such memory larger, perhaps elsewhere; NULL, and all is as before, if refused. `before` may be NULL. */
void *os_map_larger(void *before, size_t bytes_before, size_t bytes);
void *os_map_aligned(size_t bytes, size_t alignment);
/* Replaces what is mapped at `address` by fresh zeroed memory. */
int os_map_over(void *address, size_t bytes);

/* Memory for `count` huge pages, if the kernel has some. */
#define OS_HUGE_BYTES ((size_t)2 << 20)
void *os_map_huge(size_t count);
/* Creates a file of zeros and maps it shared with every process that maps it; -EEXIST if it exists. Holes
 * in it have no memory behind them: call os_populate first, as touching a hole may raise SIGBUS. */
int os_share(const char *path, size_t bytes, void **out);
typedef struct {
    void *address;
    size_t bytes;
    uint64_t device, inode; /* which file it is */
} os_mapping;
/* Maps an existing file of this user, shared, for reading and writing, after a copy of its first bytes. They
 * are copied by a read, as a touch of a file that other code cuts raises SIGBUS. -EPERM if the file belongs to
 * another user or others may open it; -ENXIO if it is no regular file; -EBADMSG if it is shorter. */
int os_map_file(const char *path, void *first, size_t first_bytes, os_mapping *out);
/* Writes the first bytes of such a file, without touching a mapping. */
int os_write_first(const char *path, const void *first, size_t bytes);
/* Frees the memory behind such a mapping, for all processes that map it: it reads as zeros. */
int os_empty_shared(void *address, size_t bytes);
int os_file_identity(const char *path, uint64_t *device, uint64_t *inode);
/* Maps such an existing file over what is mapped at `place`. */
int os_share_over(const char *path, size_t bytes, void *place);
/* Puts memory behind a part of such a file, on kernels without MADV_POPULATE_WRITE. */
int os_allocate(const char *path, uint64_t offset, size_t bytes);
/* Moves a mapping over another one, in one step for every thread. */
int os_replace(void *fresh, void *place, size_t bytes);
/* Moves the pages of private memory over other such memory, and leaves empty pages behind (Linux 5.7). */
int os_move_pages(void *to, void *from, size_t bytes);
/* Maps such memory where nothing is mapped any more, after os_move_pages has failed. Returns 0 also if it is
 * there still. */
int os_map_missing(void *address, size_t bytes);
/* A directory that no other user can write to; made if it does not exist. -EPERM if another user owns it
 * or can write to it. */
int os_private_directory(const char *path);
int os_remove(const char *path);
/* Whether any process, in whatever PID namespace, has the file open for writing or mapped from such an
 * opening: 1 or 0; -ENOTSUP if this can't be told on its file system, or another error. */
int os_is_in_use(const char *path);
void os_each_file(const char *directory, void (*visit)(const char *path, const char *name));
bool os_process_exists(uint32_t pid);

/* Where the Yama module allows a process to read only its descendants: lets `ancestor` and its descendants read
 * this process. The kernel keeps one such process, so the call replaces the one before, also what the program
 * may have allowed by PR_SET_PTRACER. Returns -ENOTSUP where the kernel does not want to be asked. */
int os_let_read(uint32_t ancestor);
/* 0 if a child of this process could read its memory; else the error. */
int os_try_whether_child_reads(void);
/* Whether a seccomp filter judges this thread's system calls. */
bool os_has_filter(void);
/* Zeroed memory that the children of later forks share. */
void *os_map_for_children(size_t bytes);
int os_random(void *to, size_t bytes);

uint32_t os_process_id(void);
uint32_t os_user_id(void);
uint32_t os_process_group(void);
/* When this process began, in clock ticks since boot, and where the program's stack begins. */
int os_process_start(uint64_t *ticks, uint64_t *stack);
/* What the kernel reports of a process; zeros: it can't be read. */
typedef struct {
    uint32_t parent;
    uint64_t start_ticks, stack_start; /* as os_process_start */
} os_process;
/* Whether a process is still there. One whose state can't be read runs. */
enum {
    OS_PROCESS_GONE,
    OS_PROCESS_RUNS,
    OS_PROCESS_STOPPED, /* by a signal or a debugger */
};
int os_process_look(uint32_t pid, os_process *out);
/* The same for a process that began then: a later one with its number counts as gone. */
int os_process_state(uint32_t pid, uint64_t start_ticks);
/* Whether the first process is the second one or a descendant of it. */
bool os_process_descends(uint32_t pid, uint32_t ancestor);
#define OS_READ_PARTS_MOST ((size_t)1 << 30) /* bytes in one call: the kernel reads less than 2 GiB */
/* Copies from the memory of another process, part by part. Returns the bytes copied before the first one that
 * can't be read. */
ssize_t os_read_parts(uint32_t pid, const struct iovec *to, size_t to_count, const struct iovec *from,
                      size_t from_count);
/* Identifies the PID namespace; 0 if the kernel does not report it. */
uint64_t os_process_namespace(void);
void os_command(char *name, size_t bytes);
/* The process's own memory: resident, and not of a file. */
int os_anonymous_bytes(uint64_t *bytes);
/* Its resident set (RSS), as other processes see it: with what was offered and not reclaimed yet. */
int os_resident_set(uint64_t *bytes);

/* Its address space, and the writable private part of it: what RLIMIT_AS and RLIMIT_DATA limit. */
int os_address_space(uint64_t *bytes, uint64_t *data);
/* All that a process of this machine can address. */
uint64_t os_address_space_bytes(void);

int os_lazyfree(void *address, size_t bytes);

/* Moves pages that this processor has just allocated to where the kernel can find them; before that it
 * ignores advice about them. `empty` is a page that was never touched. */
void os_list_new_pages(void *empty);
/* The same for several spans. An error means that it failed for at least one of them. */
int os_lazyfree_many(const struct iovec *spans, size_t count);
int os_discard_many(const struct iovec *spans, size_t count);
int os_populate(void *address, size_t bytes);
/* Locked memory (mlock) is discarded as well since Linux 5.18; before, -EINVAL. */
int os_discard(void *address, size_t bytes) EXPORTED(os_discard);
/* -EINVAL for locked memory. */
int os_discard_unlocked(void *address, size_t bytes) EXPORTED(os_discard_unlocked);
/* Choose whether the child of a fork finds these pages empty, or with their content. */
int os_wipe_on_fork(void *address, size_t bytes);
int os_keep_on_fork(void *address, size_t bytes);
int os_pageout(void *address, size_t bytes);

/* One byte a page, 1 if memory is behind it. A hint: it may change before the caller reads it. */
int os_residency(void *address, size_t bytes, unsigned char *pages) EXPORTED(os_residency);
/* Also true if the kernel does not report it, as a page that is taken for lost would be thrown away. */
bool os_is_resident(void *address);
/* Whether another process has the page as well. False if the kernel does not report it. */
bool os_is_shared(void *address);
/* The lowest page of [from, to) with memory behind it; `to` if there is none. */
char *os_lowest_resident(char *from, char *to);
/* Counts the resident bytes. Faster if the low end of the memory is mostly empty, as that of a stack is. */
size_t os_resident_bytes(char *from, char *to);
/* The same, without looking for the lowest page first. */
size_t os_count_resident(char *from, char *to);

/* Huge pages, if the machine allows them; os_commit itself forbids them. */
bool os_has_huge_pages(void);
/* Whether the machine uses them for all memory, without a request. */
bool os_always_has_huge_pages(void) EXPORTED(os_always_has_huge_pages);
void os_prefer_huge_pages(void *address, size_t bytes);
void os_forbid_huge_pages(void *address, size_t bytes);

/* Makes every touch fault from now on. Async-signal-safe, as os_commit and os_discard are. */
int os_protect(void *address, size_t bytes);

/* Whether reading this page would succeed. If so, this brings the page in. */
bool os_is_readable(void *address) EXPORTED(os_is_readable);

int os_userfault_register(int descriptor, void *address, size_t bytes);
int os_userfault_copy(int descriptor, void *to, const void *from, size_t bytes);
/* The same, but a present page keeps its content. */
int os_userfault_copy_missing(int descriptor, void *to, const void *from, size_t bytes);
/* Moves a huge page to a place where nothing is mapped in (Linux 6.8). If that place has a page table
 * already, the kernel moves small pages. */
int os_userfault_move_huge(int descriptor, void *to, void *from);
int os_userfault_zero(int descriptor, void *address, size_t bytes);

/* Reads all of `bytes`; -ENODATA if the file ends before. */
int os_read_at(int descriptor, void *to, size_t bytes, uint64_t offset);
/* Writes to standard error; there is nowhere else to report a failure of that. Async-signal-safe. */
void os_complain(const char *text, size_t bytes) EXPORTED(os_complain);

int os_open_to_read(const char *path, int *descriptor);
/* -EINVAL if the text does not begin with a number, as "max" does not. */
int os_number_in(const char *text, uint64_t *value);
/* Reads a file from its beginning and ends the text with a NUL; what does not fit is left out. Returns the
 * bytes read. */
int os_read_text(int descriptor, char *text, size_t bytes);
int os_read_small(const char *path, char *text, size_t bytes); /* the same, by path */
/* The same with as many reads as it takes: the kernel returns a long table in pieces. */
int os_read_whole(const char *path, char *text, size_t bytes);
bool os_exists(const char *path);
bool os_is_directory(const char *path);
/* The machine's used and total memory. Memory that could be freed at once counts as unused. */
int os_machine_usage(uint64_t *usage, uint64_t *total);
/* Whether the machine promises no more memory than it has (vm.overcommit_memory=2), and how much it has
 * promised and may promise. */
bool os_commits_strictly(void) EXPORTED(os_commits_strictly);
int os_commit_usage(uint64_t *usage, uint64_t *total);

#endif
