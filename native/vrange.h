/* vrange: volatile ranges of memory for one process. This header is the whole C interface.
 *
 * A range is a page-aligned part of an arena. While it is pinned, it is ordinary memory. While it is
 * volatile, nothing holds it and its content may be lost: the kernel takes its pages when other memory is
 * needed. Pinning it again reports whether anything was lost ("purged"), and keeps reporting that until
 * the owner calls vrange_refilled. This is the interface that vrange(2) proposed in 2013
 * (https://lwn.net/Articles/542504/).
 *
 * Every function may be called from any thread, and in the child of a fork. The child inherits pinned
 * ranges; all other ranges are purged there, unless the child can read them from their owner. A handle
 * contains a generation number: a call on a range that was freed returns VRANGE_GONE and never reaches another
 * range that has taken its place. Unless stated otherwise, functions that return an int return one of the
 * VRANGE_ values below, or a negative errno.
 *
 * Contents, in this order: rungs, names, accounts, the stats segment, latency histograms, address space,
 * arenas, ranges, the reserve, limits, arrays, regenerators, deep stacks, the heap, pressure, kept
 * descriptors, the process. Each section names the file that implements it.
 *
 * Between the two `cffi:` marks there are only plain declarations: the Python side is built from them. */
#ifndef VRANGE_H
#define VRANGE_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* What the name of a request ends in, instead of the ending of the segment. */
#define VRANGE_REQUEST_ENDING ".request"

/* cffi: begin */

#define VRANGE_OK 0
#define VRANGE_PURGED 1 /* the kernel took at least one page */
#define VRANGE_GONE 2   /* freed, or it never existed */
#define VRANGE_HELD 3   /* pinned: it can't be discarded now */

/* ---- the rungs: which mechanism this machine allows (rung.c) ---------------------------------- */

#define VRANGE_RUNG_EAGER 1    /* vrange discards by itself, comparing usage with the limit */
#define VRANGE_RUNG_SENTINEL 2 /* MADV_FREE; a word kept elsewhere shows whether a page was lost */
#define VRANGE_RUNG_REFAULT 3  /* MADV_FREE and userfaultfd: a lost page causes EFAULT or SIGBUS */

/* Returns the rung in use: the highest one that works on this machine and is not above the one that the
 * environment variable VRANGE_RUNG names. It is decided once a process, by trying. Returns 0 if VRANGE_RUNG
 * names no rung. */
int vrange_rung(void);

/* Returns the reason why a rung is not in use, as text for people; NULL for the rung in use and those
 * below it. */
const char *vrange_rung_refusal(int rung);

/* ---- the names of what is numbered here, as users read and write them (names.c) --------------- */

#define VRANGE_NAMES_RUNGS 0 /* VRANGE_RUNG_; "" for 0 */
#define VRANGE_NAMES_KINDS 1
#define VRANGE_NAMES_REQUESTS 2
#define VRANGE_NAMES_LATENCIES 3 /* a metric, a blank, and one of its label's values */
#define VRANGE_NAMES_PRESSURE_LEVELS 4 /* "" for VRANGE_PRESSURE_NONE */
#define VRANGE_NAMES_PRESSURE_ACTIONS 5
#define VRANGE_NAMES_PRESSURE_OUTCOMES 6
#define VRANGE_NAMES_RELEASES 7 /* VRANGE_RELEASE_ */
#define VRANGE_NAMES_LIMITS 8   /* VRANGE_LIMIT_ */

/* Returns the name of a number in one of these lists; NULL if the list has no such number. */
const char *vrange_name(int list, int number);

/* ---- accounts: counters under a name (accounts.c) --------------------------------------------- */

#define VRANGE_KIND_ARENA 0
#define VRANGE_KIND_CACHE 1
#define VRANGE_KIND_ARRAY 2
#define VRANGE_KIND_STACK 3
#define VRANGE_KIND_HEAP 4
#define VRANGE_KINDS 5

#define VRANGE_NAME_BYTES 64

/* Requests of a cache, by outcome. */
#define VRANGE_REQUEST_HOT 0      /* answered from values that the cache itself holds */
#define VRANGE_REQUEST_RESIDENT 1 /* pinned, with all of its content */
#define VRANGE_REQUEST_PURGED 2   /* was cached, and lost while memory was short */
#define VRANGE_REQUEST_MISS 3     /* never cached, expired, or evicted by the cache itself */
#define VRANGE_REQUEST_WAITED 4   /* answered by another caller's computation */
#define VRANGE_REQUEST_PEER 5     /* read from the memory of another process, which had cached it */
#define VRANGE_REQUESTS 6

#define VRANGE_ACCOUNT_FREE 0
#define VRANGE_ACCOUNT_OPEN 1
#define VRANGE_ACCOUNT_CLOSED 2 /* its counts stay reported until its place is needed: no counter goes back */

typedef struct vrange_account vrange_account;

typedef struct {
    char name[VRANGE_NAME_BYTES];
    int kind;
    int state; /* VRANGE_ACCOUNT_ */
    uint64_t ranges;
    uint64_t reserved_bytes;  /* address space */
    uint64_t pinned_bytes;    /* in use: the kernel may not take them */
    uint64_t idle_bytes;      /* volatile, not offered to the kernel yet */
    uint64_t offered_bytes;   /* volatile, and offered to the kernel */
    uint64_t purged_bytes;    /* volatile, lost, not yet freed or refilled */
    uint64_t hot_bytes;       /* set by the cache: held for hits at the speed of a dict */
    uint64_t object_bytes;    /* of these, bytes of objects outside every range; the rest are in pinned ones */
    uint64_t purged_total;    /* total bytes that the kernel took */
    uint64_t shed_total;      /* total bytes that vrange itself discarded */
    uint64_t requests[VRANGE_REQUESTS];
    uint64_t regenerated;     /* values computed, for the first time or again */
    uint64_t regenerate_ns;   /* the total time that took */
    uint64_t refaults;        /* touches of lost blocks that were refilled */
    uint64_t refused;         /* values that were not stored because there was no room */
} vrange_account_counters;

/* Opens an account. The name is cut at VRANGE_NAME_BYTES - 1 bytes. Returns NULL only if there is no
 * memory. Once 256 accounts are open, further ones have figures of their own for vrange_account_read, and
 * everywhere else count as "other", one for each kind. Beyond 8192 of these they share "other". */
vrange_account *vrange_account_open(const char *name, int kind);
void vrange_account_close(vrange_account *account);
void vrange_account_read(vrange_account *account, vrange_account_counters *out);
/* The same of a copy of an account's slot in the segment of any process (segment_layout.h). It counts since
 * the slot got its name. */
void vrange_account_read_copy(const void *slot, vrange_account_counters *out);
/* Adds to the figures of an "other" account, read from a copy, those of a copied table of overflow slots. */
void vrange_account_add_overflows(vrange_account_counters *other, const void *table, size_t slots,
                                  size_t slot_bytes);
void vrange_account_regenerated(vrange_account *account, uint64_t nanoseconds);
/* Counts a value that was not stored because there was no room. */
void vrange_account_refused(vrange_account *account);

/* Returns the address of hot_bytes, which object_bytes follows, so that the account's holder can write both
 * without a call. The address stays valid. */
uint64_t *vrange_account_hot(vrange_account *account);

/* Copies up to `capacity` open accounts to `out`. Returns how many there are. */
size_t vrange_accounts_read(vrange_account_counters *out, size_t capacity);

/* ---- the stats segment: the same counters, laid out for other processes (segment.c) ----------- */

/* Returns the path of the segment's file; NULL if the file could not be made, and the process counts in
 * private memory. */
const char *vrange_segment_path(void);
/* Returns the reason for that, as text for people; NULL if there is a file. */
const char *vrange_segment_refusal(void);
void *vrange_segment_address(void);
size_t vrange_segment_bytes(void);
/* Where readers look for segments of this user. Writes the directory number `which`; -ENOENT if this process
 * has none of this number, -ENAMETOOLONG if it does not fit. It may not exist. */
#define VRANGE_SEGMENT_PLACES 4
int vrange_segment_directory(size_t which, char *directory, size_t bytes);
/* Whether a file of this name may be a segment: 1 or 0. */
int vrange_is_segment_name(const char *name);
/* Whether a process, in whatever PID namespace, counts into the segment at this path: 1 or 0; a negative
 * errno if that can't be told, for example because the file is on a network. */
int vrange_segment_is_in_use(const char *path);
/* Whether a process runs, also by other threads than its main one: 1 or 0. Writes when it began, in clock ticks
 * since boot, and where its program's stack begins, which changes at an exec; 0: this process may not read
 * it. */
int vrange_process_runs(uint64_t pid, uint64_t *start_ticks, uint64_t *stack_start);

/* ---- requests of other processes of this user (requests.c) ------------------------------------ */

/* Where a request to this process has to lie; -ENOENT if it counts in private memory, or not at all yet. */
int vrange_request_path(char *path, size_t bytes);
/* Sets what a thread of its own calls when there is a request; NULL: requests are not looked for. */
void vrange_requests_answer(void (*function)(void));
/* Looks for a request now, as the caretaker does in each turn. */
void vrange_requests_look(void);
/* No request is answered any more. Returns -ETIMEDOUT if one is still being answered after `wait_ns`. */
int vrange_requests_end(uint64_t wait_ns);
/* Sets whether the file outlives the process, so that a reader can add its counts to a sum. */
void vrange_segment_keep(int kept);

/* ---- latency histograms (latencies.c) --------------------------------------------------------- */

/* Buckets are spaced logarithmically, eight to an octave: the middle of a bucket is within 6.3 % of any
 * duration in it. Bucket b < 8 counts b ns. Bucket 8 + 8 * octave + eighth starts at (8 + eighth) <<
 * octave ns. */
#define VRANGE_BUCKETS 304

#define VRANGE_FREE_RELEASED 0        /* time-to-free: how long the releasing caller waited */
#define VRANGE_FREE_OFFERED 1         /* time-to-free: from release until the kernel could take it */
#define VRANGE_REALLOCATE_RESIDENT 2  /* time-to-reallocate: pinned, nothing was lost */
#define VRANGE_REALLOCATE_PURGED 3    /* time-to-reallocate: lost, until refilled */
#define VRANGE_LATENCIES 4

typedef struct {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t buckets[VRANGE_BUCKETS];
} vrange_histogram;

void vrange_latency_record(int kind, int latency, uint64_t nanoseconds);
void vrange_latency_read(int kind, int latency, vrange_histogram *out);
uint64_t vrange_bucket_floor_ns(size_t bucket);

/* ---- address space (space_budget.c) ----------------------------------------------------------- */

typedef struct {
    uint64_t limit_bytes;  /* RLIMIT_AS; UINT64_MAX if there is none */
    uint64_t budget_bytes; /* what vrange may reserve for its own use */
    uint64_t own_bytes;    /* what it has reserved so */
    uint64_t asked_bytes;  /* what the program asked for: arenas of a size, volatile arrays, deep stacks */
    uint64_t left_bytes;   /* what the process can still map */
} vrange_address_space;

void vrange_address_space_read(vrange_address_space *out);

/* Returns what vrange has reserved for its own use and does not use: for the moment in which a limit is set.
 * Takes locks: not for a signal handler. */
void vrange_address_space_return(void);

/* ---- arenas (arena.c) ------------------------------------------------------------------------- */

typedef struct vrange_arena vrange_arena;

/* Reserves address space for ranges; commits no memory. Returns -ENOMEM if the address space, RLIMIT_AS or
 * the machine does not allow it, and -EINVAL for zero bytes. The account must outlive the arena. */
int vrange_arena_open(size_t bytes, vrange_account *account, vrange_arena **out);
/* The same for an arena that reserves its address space in steps, as it is used, from the budget of the whole
 * process (vrange_address_space_read). Opening it reserves nothing. */
int vrange_arena_open_growing(size_t bytes_most, vrange_account *account, vrange_arena **out);
/* Whether a range of so many bytes could be allocated if nothing else was in the arena: 1 or 0. */
int vrange_arena_can_hold(vrange_arena *arena, size_t bytes);

/* Frees the volatile ranges. Pinned ranges stay readable until their last pin is released; the address
 * space is unmapped with the last of them. From now on every handle of the arena returns VRANGE_GONE. */
void vrange_arena_close(vrange_arena *arena);
/* The same in steps: frees ranges of about `most` bytes. Returns 1 if some may be left: call it again. After 0
 * the arena is closed. From the first step on, no range can be allocated. */
int vrange_arena_close_some(vrange_arena *arena, size_t most);

/* Discards volatile ranges, the least valuable first, until `bytes` are discarded or none is left. Returns
 * the number of bytes discarded. These ranges are purged, and vrange_arena_lost lists them. */
uint64_t vrange_arena_shed(vrange_arena *arena, uint64_t bytes);

/* Returns how often the uses in this arena have been halved so far. Callers age uses that they keep
 * outside the arena by this number. */
uint32_t vrange_arena_epoch(vrange_arena *arena);

/* The uses of all arenas are halved together: after so many requests as there are ranges, times the pace. The
 * pace is in sixteenths of a request. If ranges are few, as many count as VRANGE_EPOCH_RANGES_LEAST. */
#define VRANGE_PACE_USUAL 320
#define VRANGE_PACE_FAST 20 /* and less */
#define VRANGE_EPOCH_RANGES_LEAST 50
/* Lets the uses of this arena age by its own requests, at its own pace, because its ranges compete with each
 * other only. Call it before the first range is allocated. */
void vrange_arena_age_alone(vrange_arena *arena);
/* Sets how the uses of this arena age; of all arenas that do not age alone, if it is one of them. `pace` is in
 * sixteenths. `keeps`: stored ranges start with one use, and of equal ranges the newest is worth least. */
void vrange_arena_set_aging(vrange_arena *arena, uint32_t pace, int keeps);
/* Counts the ranges that age together with those of this arena, and their pages. */
void vrange_arena_competing(vrange_arena *arena, uint32_t *ranges, uint64_t *pages);

/* Removes up to `capacity` handles from the list of ranges that were found purged while nothing held them,
 * and copies them to `handles`. Returns how many. */
size_t vrange_arena_lost(vrange_arena *arena, uint64_t *handles, size_t capacity);

/* ---- ranges (range_*.c) ----------------------------------------------------------------------- */

#define VRANGE_STATE_FREED 0
#define VRANGE_STATE_PINNED 1
#define VRANGE_STATE_IDLE 2
#define VRANGE_STATE_OFFERED 3
#define VRANGE_STATE_PURGED 4

typedef struct {
    int state;
    int lost;       /* purged and not yet refilled, whether pinned or not */
    uint32_t pins;
    void *address;
    size_t bytes;   /* a multiple of the page size */
    size_t resident_bytes;
} vrange_range_info;

typedef struct {
    const void *data;
    size_t bytes;
} vrange_part;

typedef struct {
    size_t offset;
    size_t bytes;
} vrange_block;

/* Allocates a zeroed range, pinned once. Returns -ENOMEM if the arena is full or there is no memory. */
int vrange_allocate(vrange_arena *arena, size_t bytes, uint64_t *handle);

/* Allocates a range that holds the parts one after another, pinned once. `cost_ns` is how long producing
 * the content again would take. `uses` is how often it was asked for before, in sixteenths, as vrange_uses
 * returns it. Both decide how early the range is evicted. */
int vrange_store(vrange_arena *arena, const vrange_part *parts, size_t count, uint64_t cost_ns,
                 uint32_t uses, uint64_t *handle);

/* Adds a pin. Returns VRANGE_OK if all content is there. Returns VRANGE_PURGED if some was lost: the range
 * is pinned and accessible all the same, lost blocks read as zeros, and vrange_lost_blocks lists them. On
 * an error nothing is pinned. */
int vrange_pin(uint64_t handle);

/* Adds a pin only if all content is there. If some was lost, returns VRANGE_PURGED, leaves the range
 * volatile and discards the rest of it. */
int vrange_pin_whole(uint64_t handle);

/* Releases a pin. After the last one the range is volatile: idle at first, without a system call. */
int vrange_release(uint64_t handle);

/* Sets what is lost when the kernel takes a page: the whole range (default), or only that page (partial). */
int vrange_set_partial(uint64_t handle, int partial);

/* Declares that the content is back: pins and state stop reporting it as purged. Returns -EBUSY unless the
 * range is pinned. */
int vrange_refilled(uint64_t handle);

/* Makes the kernel take a volatile range now. Returns VRANGE_HELD if it is pinned. */
int vrange_discard(uint64_t handle);

/* In the child of a fork: whether the content of a range stayed with the process that has it, its owner. Only
 * ranges with a number (vrange_set_owner) stay so; every other range that was not pinned is purged. A range
 * that is away counts as purged, and vrange_read_away reads it. */
int vrange_is_away(uint64_t handle);

/* Copies `bytes` of such a range, from `offset` on, out of the memory of its owner. Returns VRANGE_PURGED if
 * the owner has changed or freed the range, if the kernel took a page of it, or if the owner has ended or may
 * not be read; `to` holds rubbish then. */
int vrange_read_away(uint64_t handle, size_t offset, void *to, size_t bytes);

/* Tries whether a child may read this process: 0, or -EPERM, -ENOSYS or another error. */
int vrange_children_can_read(void);

/* Call before writing to a range that has a number (vrange_set_owner) and has been released before, with the
 * range pinned. `over`: what is written over was content, which children that were made before must not read
 * any more. */
void vrange_write_begins(uint64_t handle, int over);

/* Frees the range: at once, or when its last pin is released. From now on the handle returns VRANGE_GONE. */
int vrange_free(uint64_t handle);
/* The same for several ranges. Neighbours are discarded together, which is faster. */
void vrange_free_all(const uint64_t *handles, size_t count);

int vrange_range_read(uint64_t handle, vrange_range_info *out);

/* Returns the state alone, without asking the kernel: a loss that was not noticed yet does not show. */
int vrange_state(uint64_t handle);

/* Sets how long producing the content again would take, if that was not known when the range was
 * allocated. */
int vrange_set_cost(uint64_t handle, uint64_t cost_ns);

/* A number that the owner of a range finds again when it learns of the loss; 0 until it was set. Near the
 * limit an idle range that has an owner may be purged for a new one, which gets its pages; its address changes
 * then. A range without an owner keeps its address as long as it exists. */
int vrange_set_owner(uint64_t handle, uint32_t owner);
uint32_t vrange_owner(uint64_t handle);

/* Returns the bytes of the range's pages; 0 if it was freed. */
size_t vrange_bytes(uint64_t handle);

/* Returns the address of the range; NULL if it was freed. Only a caller that holds a pin may access it. */
void *vrange_address(uint64_t handle);

/* Returns how often the range was asked for, in sixteenths and aged; 0 if it was freed. */
uint32_t vrange_uses(uint64_t handle);

/* Counts requests that were answered without a pin, from a value that the caller holds. */
void vrange_used(uint64_t handle, uint32_t times);

/* Lists the lost blocks of a purged range, with neighbours joined. Returns how many there are. */
int64_t vrange_lost_blocks(uint64_t handle, vrange_block *out, size_t capacity);

/* ---- the reserve (reserve.c) ------------------------------------------------------------------ */

#define VRANGE_TICK_NS 5000000 /* by default, between two looks while there is much to do */

typedef struct {
    int running;
    uint64_t bytes;       /* how much is kept offered */
    uint64_t tick_ns;
    uint64_t offered_bytes;
    uint64_t idle_bytes;
    uint64_t ticks;
    uint64_t helped;      /* turns that storing threads took because the caretaker was late */
    uint64_t offers;      /* total ranges offered */
    uint64_t losses;      /* ranges that the thread itself found purged */
    uint64_t rankings;    /* passes over the idle ranges that order them by value */
    uint64_t busy_ns;     /* processor time, without sleep */
} vrange_reserve_info;

/* Starts the caretaker if it is not running, and sets how many bytes it keeps offered and how often it looks.
 * With `always` it offers even while so much memory is free that it need not. Returns -errno if no thread can
 * be started: then every range is offered when it is released. */
int vrange_reserve_start(uint64_t bytes, uint64_t tick_ns, int always);
void vrange_reserve_stop(void);
void vrange_reserve_read(vrange_reserve_info *out);

/* Offers the least valuable idle ranges now, until `bytes` of them are offered. Returns how many were. On the
 * eager rung, where nothing can be offered, it is 0. */
uint64_t vrange_reserve_offer(uint64_t bytes);

#define VRANGE_OTHERS_BYTES 33554432 /* what other threads may allocate while a large value is copied */

/* Reserves `bytes` of free memory for a copy that the caller is about to make, and evicts the least
 * valuable volatile ranges for it. Returns -ENOMEM if there is no room; then nothing is reserved, and
 * nothing was evicted if evicting could not have made enough room. Call vrange_room_give once the copy is
 * made. */
int vrange_room_take(uint64_t bytes);
void vrange_room_give(uint64_t bytes);

/* ---- limits: every enclosing cgroup, the process's own limits, and the machine (memory_limits.c) ------ */

#define VRANGE_CGROUPS 32
#define VRANGE_CGROUP_LIMITS 2
#define VRANGE_PATH_BYTES 4096

/* The process's place in one mounted hierarchy: `directory`, at or below `mount_point`. */
typedef struct {
    int version; /* 1 or 2 */
    char mount_point[VRANGE_PATH_BYTES];
    char directory[VRANGE_PATH_BYTES];
} vrange_hierarchy;

/* A cgroup whose memory is counted. Its directory is the beginning of its hierarchy's. */
typedef struct {
    int hierarchy;
    uint32_t directory_bytes;
    int whole_tree;     /* v1: memory.stat reports the limits above all visible cgroups */
    int error;          /* 0, or why its figures can't be read … */
    const char *failed; /* … and the name of the file */
    uint64_t limit;     /* UINT64_MAX if it has none */
    uint64_t usage;
} vrange_cgroup;

typedef struct {
    size_t hierarchy_count, count;
    vrange_hierarchy hierarchies[2];
    vrange_cgroup cgroups[VRANGE_CGROUPS]; /* of each hierarchy, from the process's own outwards */
} vrange_cgroups;

/* Finds the cgroups around the process, as `proc_self` ("/proc/self") reports them, and reads their limits.
 * Returns -errno if nothing is known about cgroups here. */
int vrange_cgroups_read(const char *proc_self, vrange_cgroups *out);

#define VRANGE_LIMIT_MACHINE 0
#define VRANGE_LIMIT_CGROUP_V1 1
#define VRANGE_LIMIT_CGROUP_V2 2
#define VRANGE_LIMIT_ADDRESS_SPACE 3 /* RLIMIT_AS */
#define VRANGE_LIMIT_DATA 4          /* RLIMIT_DATA */
#define VRANGE_LIMIT_SET 5           /* vrange_set_limit */

/* Sets how large this process's resident set (RSS) may become, for a process that is judged by another one
 * and not by the kernel. Nothing reclaims what is offered below such a limit, so near it vrange itself
 * discards the least valuable. If `most_bytes` is not 0, the judge does not count offered bytes: then vrange
 * offers the least valuable, and the kernel takes them only if it needs memory. A copy that will be offered
 * may exceed the limit, up to `most_bytes`. The child of a fork keeps the limit. 0 removes it. */
void vrange_set_limit(uint64_t bytes, uint64_t most_bytes);

typedef struct {
    int source;
    int cgroup; /* its index; -1 if the limit is not a cgroup's */
    uint64_t bytes;
    uint64_t usage; /* of what is limited */
} vrange_limit;

/* Finds the tightest of the limits of these cgroups, of the process and of the machine. */
void vrange_limit_of(const vrange_cgroups *cgroups, vrange_limit *out);

/* Returns the name of a cgroup's file: the one that reports its usage, or VRANGE_CGROUP_LIMIT + i, one of
 * those that report limits. NULL if there is none. */
#define VRANGE_CGROUP_USAGE 0
#define VRANGE_CGROUP_LIMIT 1
const char *vrange_cgroup_file(int version, int which);

/* ---- arrays: blocks that are refilled when they are touched (array*.c, sigbus.c) -------------- */

/* Refills an array: writes `bytes` bytes of content, starting at `offset` in the array, to `to`. These are
 * whole blocks, often several, except at the array's end. Returns 0 or an errno; a negative value counts
 * as EIO, and ECANCELED means that the function has reported the reason itself. It runs in a signal
 * handler, on the thread that touched the block. So it must not allocate, lock, or call Python, and it
 * must write the same bytes each time. */
typedef int (*vrange_regenerate)(void *to, size_t offset, size_t bytes, void *context);

typedef struct vrange_array vrange_array;

#define VRANGE_BLOCK_BYTES_MOST 2097152

/* Reserves an array whose blocks are all lost. `block_bytes` is a power of two, from one page to
 * VRANGE_BLOCK_BYTES_MOST.
 * Without a regenerator the caller fills blocks by vrange_array_put, and an unpinned touch of a lost block
 * ends the process. Returns -EOPNOTSUPP below the refault rung, and -ENOMEM without address space. */
int vrange_array_open(size_t bytes, size_t block_bytes, vrange_regenerate regenerate, void *context,
                      vrange_account *account, vrange_array **out);
void vrange_array_close(vrange_array *array);
void *vrange_array_address(vrange_array *array);

/* Pins blocks and fills those whose content is missing. If `missing` is not NULL, nothing is filled, and
 * missing[i] is set for each block that the caller has to put. On an error nothing stays pinned, and
 * *failed is the block that caused it. -EFAULT: its pages were missing each time after they had been
 * filled. */
int vrange_array_pin(vrange_array *array, size_t first, size_t count, unsigned char *missing,
                     size_t *failed);
void vrange_array_unpin(vrange_array *array, size_t first, size_t count);

/* Fills a pinned block with its whole content. */
int vrange_array_put(vrange_array *array, size_t block, const void *content);

/* Makes the kernel take every block that is not pinned. Before Linux 5.18 it returns -EINVAL if memory
 * is locked (mlockall): those blocks stay, with the same content. */
int vrange_array_discard(vrange_array *array);
size_t vrange_array_resident_bytes(vrange_array *array);

/* Return the touches answered, and the bytes refilled, since the array was opened. */
uint64_t vrange_array_refaults(vrange_array *array);
uint64_t vrange_array_refilled_bytes(vrange_array *array);

/* Makes vrange's SIGBUS handler the first one again if another handler was installed over it. The handler
 * is removed with the last array, unless another one was installed over it. */
int vrange_refault_arm(void);

/* ---- regenerators, one file each (regenerate_*.c) --------------------------------------------- */

int vrange_regenerate_zero(void *to, size_t offset, size_t bytes, void *context);

/* Repeats `bytes` bytes of `data` from the array's beginning on. */
typedef struct {
    const void *data;
    size_t bytes;
} vrange_pattern;
int vrange_regenerate_pattern(void *to, size_t offset, size_t bytes, void *context);

/* The content of a file from `offset` on; ENODATA if the file is too short. If other code closed the
 * descriptor, its number may be another file's by now and is not read. Then the file is opened again by
 * its path, and must be the same file (ESTALE otherwise). */
typedef struct {
    int descriptor;
    uint64_t device, inode; /* of the file that the descriptor was opened for */
    const char *path;       /* absolute */
    uint64_t offset;
} vrange_file;
int vrange_regenerate_file(void *to, size_t offset, size_t bytes, void *context);

/* Blocks of `block_bytes`, each compressed separately in zlib's format (RFC 1950). EBADMSG if a block does
 * not decompress to exactly the bytes that are expected. */
typedef struct {
    size_t block_bytes;
    size_t count;
    const void **blocks;
    const size_t *sizes;
} vrange_compressed;
/* Loads zlib. Call it before an array is opened with vrange_regenerate_compressed, which runs in a signal
 * handler. Returns 0, or -ELIBACC if there is no zlib. */
int vrange_compressed_prepare(void);
int vrange_regenerate_compressed(void *to, size_t offset, size_t bytes, void *context);

/* ---- deep stacks (stack.c, idle_threads.c) ------------------------------------------------------------ */

/* What is done with the part of a stack that a deep call used, except for VRANGE_STACK_KEPT_BYTES. */
#define VRANGE_RELEASE_VOLATILE 0 /* offered: the kernel takes it when memory is needed */
#define VRANGE_RELEASE_NOW 1      /* discarded */
#define VRANGE_RELEASE_KEEP 2     /* stays resident */

#define VRANGE_STACK_KEPT_BYTES 65536
#define VRANGE_STACK_AUTOMATIC_BYTES 4294967296u /* 4 GiB of address space; less if RLIMIT_AS is small */
#define VRANGE_STACK_USUAL_BYTES 8388608u /* 8 MiB: what a thread has of its own stack without vrange */
#define VRANGE_STACKS_MOST 4096u  /* stacks of deep calls, in use or pooled */
#define VRANGE_THREADS_MOST 4096u /* threads that are registered at a time */

typedef struct {
    uint64_t number;
    uint64_t bytes;            /* address space */
    uint64_t resident_bytes;   /* memory behind it, offered or not */
    uint64_t high_water_bytes; /* the deepest that a call went, by the page tables */
    int thread_id;             /* of the thread that runs on it; 0 if pooled */
} vrange_stack_info;

typedef struct {
    uint64_t stacks;
    uint64_t used_stacks;    /* stacks on which a thread runs now */
    uint64_t reserved_bytes; /* address space of all stacks */
    uint64_t taken;          /* deep calls that ran on a stack of the pool */
    uint64_t returned_bytes; /* total bytes offered or discarded */
    uint64_t trims;          /* trims of a thread's stack that returned something */
} vrange_stack_totals;

size_t vrange_stacks_read(vrange_stack_info *out, size_t capacity);
void vrange_stack_totals_read(vrange_stack_totals *out);

typedef struct {
    int thread_id;
    uint64_t bytes;
    uint64_t resident_bytes;
    uint64_t high_water_bytes;
} vrange_thread_info;

/* Lets vrange_stacks_trim_idle reach the calling thread until the thread ends. Returns -EPERM for the main
 * thread, whose stack can't be trimmed, and -ENOSPC if VRANGE_THREADS_MOST threads are registered or no
 * signal is free. */
int vrange_thread_register(void);

/* An interpreter that counts the threads of a process that forks calls the first before fork() and the second
 * in the parent, once it has counted. From fork() until the second call vrange has no thread of its own, and
 * the kernel counts none. Other threads meanwhile do what can't wait, as they store or allocate. */
void vrange_fork_begins(void);
void vrange_fork_ended(void);

/* Names the calling thread for top, gdb and perf; only the first 15 characters count. */
void vrange_thread_name(const char *name);
size_t vrange_threads_read(vrange_thread_info *out, size_t capacity);

/* Returns to the kernel the part of the calling thread's stack below its frames. Returns the number of
 * bytes; -EPERM on the main thread's own stack; -ENOTSUP on a stack that is neither the thread's own nor a
 * deep one. */
int64_t vrange_stack_trim(int release);

/* Makes registered threads that are blocked trim themselves, and waits up to `wait_ns` for them. Returns
 * the number of bytes; *threads is how many threads answered. */
int64_t vrange_stacks_trim_idle(int release, uint64_t wait_ns, int *threads);

/* Unmaps the pooled stacks on which no thread runs. Returns how many bytes had memory behind them. */
uint64_t vrange_stacks_trim_pooled(void);

/* Does both, for callers that trim again and again: discards pages at once, and waits a fifth of a second
 * for threads. */
uint64_t vrange_stacks_trim(void);

/* ---- the heap: memory that other allocators hold (runtime/vrange/heap) ------------------------ */

/* Counts a trim of the heap that returned something, and how long its caller waited. */
void vrange_heap_trimmed(uint64_t nanoseconds);

#define VRANGE_ALLOCATORS 4 /* those that vrange knows; the name is NULL if not loaded */
const char *vrange_allocator_name(int which);
/* Returns the name, which is part of its library's file name, whether it is loaded or not. */
const char *vrange_allocator_known(int which);
/* Whether it returns only what the calling thread holds: 1 or 0. */
int vrange_allocator_is_of_thread(int which);

/* Makes an allocator return the memory that it keeps unused. Returns by how much the process's resident
 * memory fell meanwhile; -ENOTSUP if the allocator is not loaded. */
int64_t vrange_allocator_release(int which);

/* Whether a large block that the C libraries of this process allocate comes from vrange's heap: 1 or 0. */
int vrange_malloc_is_served(void);

/* What that call would return, as the allocator itself counts it; -ENOTSUP if it does not tell. */
int64_t vrange_allocator_unused(int which);
/* Writes what glibc reports of its arenas (malloc_info(3)), cut to `bytes`. Returns its length; 0 if there is
 * no such report. Each arena is locked while its free blocks are counted. */
size_t vrange_glibc_report(char *text, size_t bytes);

/* Returns the exact resident memory of the process; 0 if the kernel does not report it. */
uint64_t vrange_resident_bytes(void);

/* ---- the heap: array data (heap.c) -------------------------------------------------------------- */

typedef struct {
    uint64_t blocks;         /* in use */
    uint64_t reserved_bytes; /* address space */
    uint64_t used_bytes;
    uint64_t idle_bytes;     /* freed, not offered to the kernel yet */
    uint64_t offered_bytes;  /* freed and offered: the kernel may have taken them since */
    uint64_t resident_bytes; /* memory behind all of it, by the page tables */
    uint64_t trimmed_bytes;  /* total bytes that vrange_heap_trim returned */
} vrange_heap_info;

/* All zeros until the heap is used for the first time. */
void vrange_heap_read(vrange_heap_info *out);

/* Sets whether freed memory that has been idle for a second is returned to the kernel: 1 or 0. Otherwise it is
 * only offered, and counts in the resident set until the kernel takes it. A limit of vrange_set_limit has the
 * same effect. */
void vrange_heap_return_idle(int returns);

/* Returns all freed memory to the kernel now. Returns how many bytes had memory behind them. */
uint64_t vrange_heap_trim(void);
/* Returns how many that would be. */
uint64_t vrange_heap_unused(void);

/* ---- pressure: how much of the usable memory is used (watcher.c) ------------------------------ */

#define VRANGE_PRESSURE_NONE 0 /* no watcher runs */
#define VRANGE_PRESSURE_NORMAL 1
#define VRANGE_PRESSURE_ELEVATED 2
#define VRANGE_PRESSURE_CRITICAL 3
#define VRANGE_PRESSURE_LEVELS 4

#define VRANGE_PRESSURE_MACHINE -1
#define VRANGE_PRESSURE_SET -2 /* the limit of vrange_set_limit */

/* The actions while pressure rises, and hot fronts that grow again while it falls. */
#define VRANGE_PRESSURE_OFFER_HOT 0
#define VRANGE_PRESSURE_GROW_HOT 1
#define VRANGE_PRESSURE_TRIM_STACKS 2
#define VRANGE_PRESSURE_TRIM_HEAP 3
#define VRANGE_PRESSURE_CALLBACK 4
#define VRANGE_PRESSURE_ACTIONS 5

#define VRANGE_PRESSURE_DONE 0
#define VRANGE_PRESSURE_FAILED 1
#define VRANGE_PRESSURE_SKIPPED 2 /* put off, because it was done a moment ago or still runs */
#define VRANGE_PRESSURE_OUTCOMES 3

/* Thresholds are shares of the limit. A level ends when the share falls `hysteresis` below its threshold.
 * Elevated becomes critical if tasks wait for memory for at least the share `stalled` of the time.
 * `again_ns` is the shortest time after which waiters are called again while a level stays and usage keeps
 * growing. */
typedef struct {
    uint64_t interval_ns, again_ns;
    double elevated, critical, hysteresis, stalled;
} vrange_pressure_settings;

typedef struct {
    int running;
    int level;
    int place; /* index among the watched cgroups of the one nearest to its limit, or one of those two */
    int moved;            /* the process is in another cgroup: set the places again */
    uint64_t usage_bytes; /* as the kernel counts it */
    uint64_t used_bytes;  /* without what can be taken at once */
    uint64_t limit_bytes;
    double stalled;       /* share of time; 0 while usage is low */
    uint64_t changes, growths, polls, read_errors;
    uint64_t changed_ns;  /* CLOCK_MONOTONIC */
    uint64_t busy_ns;     /* processor time of the thread */
    uint64_t turn;
} vrange_pressure_info;

/* Finds the cgroups to watch, as `proc_self` reports them, and stores them in *found. Those with an error
 * are not watched; the others are, in this order. Returns -ENOMEM if nothing changed. */
int vrange_pressure_find(const char *proc_self, vrange_cgroups *found);

/* Looks once and starts the watcher's thread. Returns -EBUSY if the watcher is running, -ENODATA if nothing
 * can be read, and -errno if no thread can be started. */
int vrange_pressure_start(const vrange_pressure_settings *settings);
void vrange_pressure_stop(void);
void vrange_pressure_read(vrange_pressure_info *out);

/* Sleeps until the turn differs from `seen`, the watcher stops, or the time is over. Returns the turn. */
uint64_t vrange_pressure_wait(uint64_t seen, uint64_t timeout_ns);
void vrange_pressure_poke(void); /* wakes all waiters */

/* Counts an action, and the bytes that it returned, in the stats segment. */
void vrange_pressure_acted(int action, int outcome, uint64_t bytes);

/* ---- an index that the processes of a service share (core/service) ---------------------------- */

typedef struct vrange_shared vrange_shared;

#define VRANGE_DIGEST_BYTES 16
#define VRANGE_PAYLOAD_MOST 5376 /* bytes that a record holds itself */
#define VRANGE_BUCKET_WORDS 16 /* of 8 bytes; the first one counts changes, each other one is for a record */
#define VRANGE_RECORD_BLOCK_BYTES 16384

#define VRANGE_RECORD_VALUE 1 /* its payload is the value */
#define VRANGE_RECORD_RANGE 2 /* the value is a range of its owner */
#define VRANGE_RECORD_ERROR 3 /* what a computation raised */

typedef struct {
    uint64_t address, word_at, word, handle;
} vrange_shared_place;

typedef struct {
    int kind; /* VRANGE_RECORD_ */
    uint32_t flight;
    uint64_t stamp; /* different for each record that was ever published */
    uint64_t at, word; /* words[at] is `word` as long as this record is the key's */
    uint64_t owner;
    uint64_t expires_ns; /* by the monotonic clock, which all processes share; 0: never */
    uint64_t bytes;      /* of the value */
    uint32_t payload_bytes;
    vrange_shared_place place;
} vrange_shared_found;

#define VRANGE_NOTE_AT 40 /* where the note of a range's record begins in its payload */

/* A record that is to be published. It is not, if its bucket has changed since `changes` was read, unless it
 * `replaces` whatever value the key has, and whatever is being computed for it. */
typedef struct {
    unsigned char digest[VRANGE_DIGEST_BYTES];
    uint64_t changes, stamp, expires_ns;
    int replaces;
} vrange_shared_key;

typedef struct {
    uint64_t word;
    uint32_t number, landings;
    int leads; /* the caller has to land it */
} vrange_shared_flight;

/* Maps the index at this path, and makes it if there is none: with so many buckets, a power of two, and
 * blocks of 16 KiB for records. The caller holds a lock that keeps other processes from making or removing
 * it. The mapping stays until the process ends. Returns -EBADMSG if the file is no whole index, and -EPROTO if
 * another version made it. */
int vrange_shared_open(const char *path, uint32_t buckets, uint32_t blocks, vrange_shared **out);
/* Whether this index is the one at the path: 1 or 0. */
int vrange_shared_is_at(const vrange_shared *index, const char *path);
/* Frees its memory, once its file was removed and no member is left. */
void vrange_shared_empty(vrange_shared *index);
/* Makes this process a member, under the same lock. Only a member publishes. The child of a fork is none
 * until it joins. Returns -EUSERS if there are 1024 members. */
int vrange_shared_join(vrange_shared *index);
void vrange_shared_leave(vrange_shared *index);
/* 0: not a member. */
uint64_t vrange_shared_identity(const vrange_shared *index);
/* Returns how many other members are alive. */
uint32_t vrange_shared_members(const vrange_shared *index);

/* All words of the index. */
const uint64_t *vrange_shared_words(const vrange_shared *index, size_t *count);

/* Finds a key's record and copies its payload, of at most `room` bytes. VRANGE_OK or VRANGE_GONE; -ESRCH if
 * this process is no member: the index may be one that nobody uses any more. */
int vrange_shared_find(const vrange_shared *index, const unsigned char *digest, void *payload, size_t room,
                       vrange_shared_found *out);
/* The same for the next record of any key. Begin with *cursor 0; VRANGE_GONE: there is none left. */
int vrange_shared_next(const vrange_shared *index, uint64_t *cursor, void *payload, size_t room,
                       vrange_shared_found *out);
/* Copies a value from its owner's memory: its first `head_bytes` to one place, and the others to another.
 * VRANGE_PURGED if it is gone, VRANGE_GONE if it is no longer the key's. -EPERM and others: this process may
 * not read the owner's memory. */
int vrange_shared_read(const vrange_shared *index, const vrange_shared_found *found, void *head,
                       size_t head_bytes, void *to);
/* Removes a record if it is still the key's. */
int vrange_shared_drop(vrange_shared *index, uint64_t at, uint64_t word);

/* A number that is another one after each removal of the key; and which of the words that is. */
uint64_t vrange_shared_changes(const vrange_shared *index, const unsigned char *digest);
uint64_t vrange_shared_changes_at(const vrange_shared *index, const unsigned char *digest);
uint64_t vrange_shared_stamp(vrange_shared *index);
/* Publish a record: a value, what a computation raised, or where a value lies in a range of this process. They
 * set at, word, owner and stamp of *out. Return -ESTALE if the bucket changed, -ENOSPC without room, -ESRCH if
 * this process is no member, and -ENOTSUP if others could not read the range. */
int vrange_shared_put(vrange_shared *index, const vrange_shared_key *key, const void *payload, size_t bytes,
                      vrange_shared_found *out);
int vrange_shared_put_error(vrange_shared *index, const vrange_shared_key *key, uint32_t flight,
                            const void *payload, size_t bytes, vrange_shared_found *out);
int vrange_shared_put_range(vrange_shared *index, const vrange_shared_key *key, uint64_t handle, size_t bytes,
                            const void *note, size_t note_bytes, vrange_shared_found *out);
/* Returns the number of values. */
uint64_t vrange_shared_count(const vrange_shared *index);

/* Removes a key's record: no computation that began before stores one. Returns the number of changes after it;
 * *removed is 1 if there was a value. */
uint64_t vrange_shared_change(vrange_shared *index, const unsigned char *digest, int *removed);
void vrange_shared_clear(vrange_shared *index); /* the same for all keys */

/* Begins a computation. VRANGE_OK: the caller leads, and has to land. VRANGE_HELD: another one leads; wait for
 * it. -EBUSY: the place is another key's; compute without. */
int vrange_shared_lead(vrange_shared *index, const unsigned char *digest, vrange_shared_flight *out);
void vrange_shared_land(vrange_shared *index, const vrange_shared_flight *led);
/* Waits until a flight lands, but not longer than so many nanoseconds. VRANGE_OK: it has landed, or its leader
 * is dead or stopped: look again. VRANGE_HELD: not yet. */
int vrange_shared_wait(vrange_shared *index, const vrange_shared_flight *awaited, uint64_t nanoseconds);
/* Notes that the leader of `led` waits for the flight of this number; -1: for none. */
void vrange_shared_waits_for(vrange_shared *index, const vrange_shared_flight *led, int64_t awaited);
/* Whether the flight `from` waits, through others, for one of these: then waiting for it would never end. */
int vrange_shared_leads_to(const vrange_shared *index, uint32_t from, const vrange_shared_flight *led,
                           size_t count);

/* ---- kept descriptors (kept_descriptors.c) ---------------------------------------------------- */

/* A descriptor's number, and the file that it was opened for. Other code may close every descriptor of the
 * process, and then get the same number for a file of its own. */
typedef struct {
    int number;
    uint64_t device, inode;
} vrange_descriptor;

/* Notes a descriptor that has just been opened. A number of a standard stream, 0 to 2, is replaced by a higher
 * one. Returns 0 or -errno. */
int vrange_descriptor_note(int number, vrange_descriptor *out);
/* Whether the number still refers to the file that was opened: 1 or 0. */
int vrange_descriptor_is_ours(const vrange_descriptor *descriptor);
/* Closes the descriptor, unless other code has closed it already. */
void vrange_descriptor_close(const vrange_descriptor *descriptor);

/* ---- the process ------------------------------------------------------------------------------ */

size_t vrange_page_bytes(void);

/* cffi: end */

#pragma GCC visibility pop

#endif
