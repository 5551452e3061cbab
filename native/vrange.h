/* vrange: volatile ranges of memory for one process. This header is the whole C interface.
 *
 * A range is a page-aligned piece of an arena. Pinned, it is ordinary memory. Volatile, nobody holds
 * it and its content may go: the kernel takes its pages when somebody else needs them. Pinning it
 * again tells whether anything went ("purged"), and goes on telling until the owner says "refilled".
 * That is what vrange(2) promised in 2013 (https://lwn.net/Articles/542504/).
 *
 * Every call is safe from any thread, and in the child of a fork, which inherits what is pinned; all
 * other ranges are purged there. A handle carries a generation, so a
 * call on a range that was freed answers VRANGE_GONE; it never reaches somebody else's range.
 * Calls return a VRANGE_ value, or a negative errno.
 *
 * Between the two `cffi:` marks stand plain declarations only: the Python side is built from them.
 */
#ifndef VRANGE_H
#define VRANGE_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* cffi: begin */

#define VRANGE_OK 0
#define VRANGE_PURGED 1 /* the kernel took at least one page */
#define VRANGE_GONE 2   /* freed, or never was */
#define VRANGE_HELD 3   /* pinned: it can't be discarded now */

/* ---- the rungs: which mechanism this machine allows (rung.c) ---------------------------------- */

#define VRANGE_RUNG_EAGER 1    /* the runtime discards by itself, watching usage against the limit */
#define VRANGE_RUNG_SENTINEL 2 /* MADV_FREE; a lost page is found by a word kept aside */
#define VRANGE_RUNG_REFAULT 3  /* MADV_FREE and userfaultfd: a lost page answers EFAULT or SIGBUS */

/* The rung in use: the highest that works here, or the one VRANGE_RUNG names in the environment.
 * Decided once a process, by trying. 0: the name in VRANGE_RUNG is none, or not to be had. */
int vrange_rung(void);

/* Why a rung is not in use, in words for a person; NULL for the rung that is and those below it. */
const char *vrange_rung_refusal(int rung);

/* ---- accounts: what is counted, under which name (stats.c) ------------------------------------ */

#define VRANGE_KIND_ARENA 0
#define VRANGE_KIND_CACHE 1
#define VRANGE_KIND_ARRAY 2
#define VRANGE_KIND_STACK 3
#define VRANGE_KIND_HEAP 4
#define VRANGE_KINDS 5

#define VRANGE_NAME_BYTES 64

/* Requests of a cache, by outcome. */
#define VRANGE_REQUEST_HOT 0      /* answered from values the cache itself holds */
#define VRANGE_REQUEST_RESIDENT 1 /* pinned, all there */
#define VRANGE_REQUEST_PURGED 2   /* was cached; the kernel took it */
#define VRANGE_REQUEST_MISS 3     /* never cached, expired, or let go by the cache itself */
#define VRANGE_REQUESTS 4

typedef struct vrange_account vrange_account;

typedef struct {
    char name[VRANGE_NAME_BYTES];
    int kind;
    uint64_t ranges;
    uint64_t reserved_bytes;  /* address space */
    uint64_t pinned_bytes;    /* in use: the kernel may not take them */
    uint64_t idle_bytes;      /* volatile, the kernel not told yet */
    uint64_t offered_bytes;   /* volatile, the kernel told */
    uint64_t purged_bytes;    /* volatile, lost, not yet freed or refilled */
    uint64_t hot_bytes;       /* told by the cache: held for hits at the speed of a dict */
    uint64_t purged_total;    /* bytes ever lost to the kernel */
    uint64_t shed_total;      /* bytes ever let go by the runtime itself */
    uint64_t requests[VRANGE_REQUESTS];
    uint64_t regenerated;     /* values computed again or for the first time */
    uint64_t regenerate_ns;   /* and the time that took */
    uint64_t refaults;        /* touches of lost blocks that were answered */
    uint64_t refused;         /* values that were not stored, as there was no room */
} vrange_account_counters;

/* Opens an account; the name is cut at VRANGE_NAME_BYTES - 1 bytes. NULL only without memory. Past 256
 * open ones, the next share one named "other" for each kind. */
vrange_account *vrange_account_open(const char *name, int kind);
void vrange_account_close(vrange_account *account);
void vrange_account_read(vrange_account *account, vrange_account_counters *out);
void vrange_account_regenerated(vrange_account *account, uint64_t nanoseconds);
/* A value was not stored, as there was no room. */
void vrange_account_refused(vrange_account *account);

/* The word behind hot_bytes, for whoever holds it: written without a call. Stays where it is. */
uint64_t *vrange_account_hot(vrange_account *account);

/* Copies up to `capacity` open accounts; returns how many there are. */
size_t vrange_accounts_read(vrange_account_counters *out, size_t capacity);

/* ---- the stats segment: the same, laid out for readers outside (segment.c) -------------------- */

/* The file; NULL where it could not be had, and the process counts in memory of its own. */
const char *vrange_segment_path(void);
/* Why not, in words for a person; NULL where it could. */
const char *vrange_segment_refusal(void);
void *vrange_segment_address(void);
size_t vrange_segment_bytes(void);
/* Whether the file outlives the process, because somebody is to add its counts to a sum. */
void vrange_segment_keep(int kept);

/* ---- latency histograms (stats.c) ------------------------------------------------------------- */

/* Log-spaced, eight buckets an octave: a bucket's middle is within 6.3 % of what fell into it.
 * Bucket b < 8 counts b ns; bucket 8 + 8 * octave + eighth starts at (8 + eighth) << octave ns. */
#define VRANGE_BUCKETS 304

#define VRANGE_FREE_RELEASED 0        /* time-to-free: what the releasing caller waited */
#define VRANGE_FREE_OFFERED 1         /* time-to-free: from release until the kernel could take it */
#define VRANGE_REALLOCATE_RESIDENT 2  /* time-to-reallocate: pinned, all there */
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

/* ---- arenas (arena.c) ------------------------------------------------------------------------- */

typedef struct vrange_arena vrange_arena;

/* Reserves address space for ranges and commits none of it. -ENOMEM where the address space, an
 * RLIMIT_AS or the machine refuses; -EINVAL for zero bytes. The account must outlive the arena. */
int vrange_arena_open(size_t bytes, vrange_account *account, vrange_arena **out);

/* Frees what is volatile; what is pinned stays readable until its last pin goes, and the address
 * space goes with it. Every handle of the arena answers VRANGE_GONE from now on. */
void vrange_arena_close(vrange_arena *arena);

/* Discards volatile ranges, the least valuable first, until `bytes` are gone or none is left.
 * Returns the bytes that went. The ranges are purged, and are listed by vrange_arena_lost. */
uint64_t vrange_arena_shed(vrange_arena *arena, uint64_t bytes);

/* How often uses were halved so far: by this, uses kept outside of the arena are aged. */
uint32_t vrange_arena_epoch(vrange_arena *arena);

/* Takes up to `capacity` handles off the list of ranges found purged while nobody held them. */
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
    size_t bytes;   /* a multiple of the page */
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

/* A zeroed range, pinned once. -ENOMEM: the arena is full or the memory is not to be had. */
int vrange_allocate(vrange_arena *arena, size_t bytes, uint64_t *handle);

/* A range filled with the parts one after another, pinned once. `cost_ns` is what producing them
 * again would take and `uses` how often they were asked for before, in sixteenths, as vrange_uses
 * tells it: both steer what goes first. */
int vrange_store(vrange_arena *arena, const vrange_part *parts, size_t count, uint64_t cost_ns,
                 uint32_t uses, uint64_t *handle);

/* Adds a pin. VRANGE_OK: all there. VRANGE_PURGED: pinned and accessible all the same, lost blocks
 * read as zeros and vrange_lost_blocks lists them. On an error nothing is pinned. */
int vrange_pin(uint64_t handle);

/* Adds a pin only if all is there; VRANGE_PURGED leaves the range volatile and discards its rest. */
int vrange_pin_whole(uint64_t handle);

/* Drops a pin. With the last one the range is volatile: idle at once, no system call. */
int vrange_release(uint64_t handle);

/* What is lost when the kernel takes a page: the whole range (default), or that page (partial). */
int vrange_set_partial(uint64_t handle, int partial);

/* The content is back: pins and state stop saying purged. Only while pinned (-EBUSY otherwise). */
int vrange_refilled(uint64_t handle);

/* Makes the kernel take a volatile range now. VRANGE_HELD while pinned. */
int vrange_discard(uint64_t handle);

/* Frees the range: at once, or when its last pin goes. The handle is VRANGE_GONE from now on. */
int vrange_free(uint64_t handle);

int vrange_range_read(uint64_t handle, vrange_range_info *out);

/* The state alone, without asking the kernel: a page lost unseen does not show. */
int vrange_state(uint64_t handle);

/* What producing the content again would take, where it was not known when the range was made. */
int vrange_set_cost(uint64_t handle, uint64_t cost_ns);

/* Where the range lies; NULL where it is gone. Only a caller with a pin may look there. */
void *vrange_address(uint64_t handle);

/* How often the range was asked for, in sixteenths and aged; 0 where it is gone. */
uint32_t vrange_uses(uint64_t handle);

/* Uses times the cost of computing it again: what an entry is worth, whatever its size. 0: it is gone. */
double vrange_worth(uint64_t handle);

/* Counts requests that were answered without a pin, from what the caller holds. */
void vrange_used(uint64_t handle, uint32_t times);

/* The lost blocks of a purged range, neighbours joined; returns how many there are. */
int64_t vrange_lost_blocks(uint64_t handle, vrange_block *out, size_t capacity);

/* ---- the reserve (reserve.c) ------------------------------------------------------------------ */

typedef struct {
    int running;
    uint64_t bytes;       /* how much is kept offered */
    uint64_t tick_ns;
    uint64_t offered_bytes;
    uint64_t idle_bytes;
    uint64_t ticks;
    uint64_t helped;      /* looks taken by threads that stored, as the reserve's own was late */
    uint64_t offers;      /* ranges ever offered */
    uint64_t losses;      /* ranges the thread itself found purged */
    uint64_t rankings;    /* passes over the idle ranges, to order them by value */
    uint64_t busy_ns;     /* processor time spent outside sleep */
} vrange_reserve_info;

/* Starts the thread if need be and sets how much it keeps offered and how often it looks. `always`:
 * also while so much is free that nothing has to be offered. -errno where no thread can be had: then
 * every range is offered at release. */
int vrange_reserve_start(uint64_t bytes, uint64_t tick_ns, int always);
void vrange_reserve_stop(void);
void vrange_reserve_read(vrange_reserve_info *out);

#define VRANGE_CGROUPS 16
#define VRANGE_CGROUP_LIMITS 2

/* A cgroup around this process: the files that tell its usage, what that is made of, and its limits
 * (NULL: none), and a limit above all that is in sight (UINT64_MAX: none). */
typedef struct {
    const char *usage;
    const char *stat;
    const char *limits[VRANGE_CGROUP_LIMITS];
    uint64_t limit_above;
} vrange_cgroup;

/* Replaces what the reserve takes for the limits of this process; with none it is the machine.
 * -E2BIG past VRANGE_CGROUPS, or why a usage can't be opened: then all is as before. */
int vrange_headroom_watch(const vrange_cgroup *cgroups, size_t count);

/* Reserves `bytes` of what is free for a copy that the caller is about to make; the least valuable volatile
 * ranges go for it. -ENOMEM: there is no room, and nothing went. To be given back once the copy is made. */
int vrange_room_take(uint64_t bytes);
void vrange_room_give(uint64_t bytes);

/* ---- arrays: blocks that grow back where they are touched (array.c, sigbus.c) ---------------- */

/* Puts content back: `bytes` bytes from `offset` of the array on, to `to`. Whole blocks, often several,
 * but for the array's end. 0, or an errno (what is negative counts as EIO; ECANCELED: it has shown
 * itself why). It runs in a signal handler on whatever thread touched the
 * block, so it may not allocate, lock, or call Python; it must put the same bytes there each time. */
typedef int (*vrange_regenerate)(void *to, size_t offset, size_t bytes, void *context);

typedef struct vrange_array vrange_array;

/* Reserves an array all of whose blocks are lost. `block_bytes`: a power of two, from a page to 2 MiB.
 * Without a regenerator blocks are put by vrange_array_put, and an unpinned touch ends the process.
 * -EOPNOTSUPP below the refault rung, -ENOMEM without address space. */
int vrange_array_open(size_t bytes, size_t block_bytes, vrange_regenerate regenerate, void *context,
                      vrange_account *account, vrange_array **out);
void vrange_array_close(vrange_array *array);
void *vrange_array_address(vrange_array *array);

/* Pins blocks and fills those that lack something. Where `missing` is given, missing[i] is set for each
 * block that has to be put, and nothing is filled. On an error nothing stays pinned and *failed is the block it was about. */
int vrange_array_pin(vrange_array *array, size_t first, size_t count, unsigned char *missing,
                     size_t *failed);
void vrange_array_unpin(vrange_array *array, size_t first, size_t count);

/* Puts a pinned block's whole content. */
int vrange_array_put(vrange_array *array, size_t block, const void *content);

/* Makes the kernel take every block that is not pinned. */
int vrange_array_discard(vrange_array *array);
size_t vrange_array_resident_bytes(vrange_array *array);

/* Touches answered, and bytes put back, since the array was opened. */
uint64_t vrange_array_refaults(vrange_array *array);
uint64_t vrange_array_refilled_bytes(vrange_array *array);

/* Makes our SIGBUS handler the first again if somebody else's was installed over it. With the last
 * array it goes away, unless somebody else came over it. */
int vrange_refault_arm(void);

/* ---- regenerators, one file each (regenerate_*.c) --------------------------------------------- */

int vrange_regenerate_zero(void *to, size_t offset, size_t bytes, void *context);

/* `bytes` bytes again and again, from the array's beginning on. */
typedef struct {
    const void *data;
    size_t bytes;
} vrange_pattern;
int vrange_regenerate_pattern(void *to, size_t offset, size_t bytes, void *context);

/* The file's content from `offset` on. ENODATA where it is too short. A descriptor that somebody closed,
 * so that its number may be another file's, is not read: the file is opened by its path then, and is to
 * be the same (ESTALE). */
typedef struct {
    int descriptor;
    uint64_t device, inode; /* what it is opened for */
    const char *path;       /* absolute */
    uint64_t offset;
} vrange_file;
int vrange_regenerate_file(void *to, size_t offset, size_t bytes, void *context);

/* Blocks of `block_bytes`, each compressed by itself in zlib's format (RFC 1950). EBADMSG where one
 * does not give just the bytes that are wanted. */
typedef struct {
    size_t block_bytes;
    size_t count;
    const void **blocks;
    const size_t *sizes;
} vrange_compressed;
int vrange_regenerate_compressed(void *to, size_t offset, size_t bytes, void *context);

/* ---- deep stacks (stack.c, idle_threads.c) ------------------------------------------------------------ */

/* What becomes of the part of a stack that a deep call used, but for VRANGE_STACK_KEPT_BYTES. */
#define VRANGE_RELEASE_VOLATILE 0 /* offered: the kernel takes it when somebody needs it */
#define VRANGE_RELEASE_NOW 1      /* discarded */
#define VRANGE_RELEASE_KEEP 2     /* stays resident */

#define VRANGE_STACK_KEPT_BYTES 65536

typedef struct {
    uint64_t number;
    uint64_t bytes;            /* address space */
    uint64_t resident_bytes;   /* memory behind it, offered or not */
    uint64_t high_water_bytes; /* the furthest a call went down, by the page tables */
    int thread_id;             /* of the thread that runs on it; 0: pooled */
} vrange_stack_info;

typedef struct {
    uint64_t stacks;
    uint64_t used_stacks;    /* a thread runs on them now */
    uint64_t reserved_bytes; /* address space of all */
    uint64_t taken;          /* deep calls that went to a stack */
    uint64_t returned_bytes; /* ever offered or discarded */
    uint64_t trims;          /* trims of a thread's stack that gave something back */
} vrange_stack_totals;

size_t vrange_stacks_read(vrange_stack_info *out, size_t capacity);
void vrange_stack_totals_read(vrange_stack_totals *out);

typedef struct {
    int thread_id;
    uint64_t bytes;
    uint64_t resident_bytes;
    uint64_t high_water_bytes;
} vrange_thread_info;

/* Lets trim_idle reach the calling thread until it ends. -EPERM for the main thread, whose stack
 * can't be trimmed; -ENOSPC where too many are registered, or no signal is free. */
int vrange_thread_register(void);
size_t vrange_threads_read(vrange_thread_info *out, size_t capacity);

/* Gives back the calling thread's stack below its frames; returns the bytes. -EPERM on the main
 * thread's own stack, -ENOTSUP on one that is neither the thread's own nor a deep one. */
int64_t vrange_stack_trim(int release);

/* Makes registered threads that are blocked trim themselves, and waits up to `wait_ns` for them.
 * Returns the bytes; *threads is how many answered. */
int64_t vrange_stacks_trim_idle(int release, uint64_t wait_ns, int *threads);

/* Unmaps the stacks that nobody runs on; returns the bytes that had memory behind them. */
uint64_t vrange_stacks_trim_pooled(void);

/* Both, for whoever trims over and over: pages go at once, and threads are waited for a fifth of a second. */
uint64_t vrange_stacks_trim(void);

/* ---- the heap: what the allocators of others hold (runtime/vrange/heap) ------------------------ */

/* Counts a trim of the heap that gave something back, and how long its caller waited. */
void vrange_heap_trimmed(uint64_t nanoseconds);

#define VRANGE_ALLOCATORS 4 /* that are known; those loaded have a name, the others NULL */
const char *vrange_allocator_name(int which);

/* Has an allocator give back what it keeps unused; what the process's resident memory went down by
 * meanwhile. -ENOTSUP: it is not loaded. */
int64_t vrange_allocator_release(int which);

/* The process's resident memory, exactly; 0 where the kernel doesn't tell. */
uint64_t vrange_resident_bytes(void);

/* ---- the heap: array data (heap.c) -------------------------------------------------------------- */

typedef struct {
    uint64_t blocks;         /* in use */
    uint64_t reserved_bytes; /* address space */
    uint64_t used_bytes;
    uint64_t idle_bytes;     /* freed, the kernel not told yet */
    uint64_t offered_bytes;  /* freed, the kernel told: it may have taken them since */
    uint64_t resident_bytes; /* memory behind all of it, by the page tables */
    uint64_t trimmed_bytes;  /* ever given back by vrange_heap_trim */
} vrange_heap_info;

/* All zeros until somebody uses the heap. */
void vrange_heap_read(vrange_heap_info *out);

/* Gives back all that is freed, now; returns the bytes that had memory behind them. */
uint64_t vrange_heap_trim(void);
/* ---- pressure: how much of what may be used is used (pressure.c) ------------------------------- */

#define VRANGE_PRESSURE_NONE 0 /* nobody watches */
#define VRANGE_PRESSURE_NORMAL 1
#define VRANGE_PRESSURE_ELEVATED 2
#define VRANGE_PRESSURE_CRITICAL 3
#define VRANGE_PRESSURE_LEVELS 4

#define VRANGE_PRESSURE_PLACES 32
#define VRANGE_PRESSURE_LIMITS 2
#define VRANGE_PRESSURE_MACHINE -1

/* What is done on the way up, and hot fronts that grow on the way down. */
#define VRANGE_PRESSURE_OFFER_HOT 0
#define VRANGE_PRESSURE_GROW_HOT 1
#define VRANGE_PRESSURE_TRIM_STACKS 2
#define VRANGE_PRESSURE_TRIM_HEAP 3
#define VRANGE_PRESSURE_CALLBACK 4
#define VRANGE_PRESSURE_ACTIONS 5

#define VRANGE_PRESSURE_DONE 0
#define VRANGE_PRESSURE_FAILED 1
#define VRANGE_PRESSURE_SKIPPED 2 /* put off, as it was done a moment ago or still runs */
#define VRANGE_PRESSURE_OUTCOMES 3

/* The files of one cgroup; NULL where there is none. Only `usage` has to be readable. `whole_tree`:
 * memory.stat tells of limits above all that is in sight (v1). */
typedef struct {
    const char *usage;
    const char *stat;
    const char *stalls;
    const char *limits[VRANGE_PRESSURE_LIMITS];
    int whole_tree;
} vrange_pressure_place;

/* Thresholds are shares of the limit; a level is left `hysteresis` below the one that it began at.
 * `stalled`: from this share of time on that tasks wait for memory, elevated is critical. `again_ns`:
 * how soon waiters are called again at most while a level stays and usage goes on to grow. */
typedef struct {
    uint64_t interval_ns, again_ns;
    double elevated, critical, hysteresis, stalled;
} vrange_pressure_settings;

typedef struct {
    int running;
    int level;
    int place;            /* index of the place that is nearest to its limit, or the machine */
    int moved;            /* the process is in another cgroup: the places are to be told anew */
    uint64_t usage_bytes; /* as the kernel counts it */
    uint64_t used_bytes;  /* without what can be taken at once */
    uint64_t limit_bytes;
    double stalled;       /* share of time; 0 while usage is low */
    uint64_t changes, growths, polls, read_errors;
    uint64_t changed_ns;  /* CLOCK_MONOTONIC */
    uint64_t busy_ns;     /* processor time of the thread */
    uint64_t turn;
} vrange_pressure_info;

/* Replaces what is watched. -E2BIG past VRANGE_PRESSURE_PLACES, or why a usage can't be opened. */
int vrange_pressure_places(const vrange_pressure_place *places, size_t count);

/* Looks once and starts the thread. `membership` tells which cgroups the process is in. -EBUSY where it
 * runs, -ENODATA where nothing can be read, -errno where no thread can be had. */
int vrange_pressure_start(const vrange_pressure_settings *settings, const char *membership,
                          const char *machine_stalls);
void vrange_pressure_stop(void);
void vrange_pressure_read(vrange_pressure_info *out);

/* Sleeps until the turn is another than `seen`, the watcher ends, or the time is over; the turn. */
uint64_t vrange_pressure_wait(uint64_t seen, uint64_t timeout_ns);
void vrange_pressure_poke(void); /* wakes all who wait */

/* Counts what was done, and the bytes it gave back, in the stats segment. */
void vrange_pressure_acted(int action, int outcome, uint64_t bytes);

/* ---- the process ------------------------------------------------------------------------------ */

size_t vrange_page_bytes(void);

/* cffi: end */

#pragma GCC visibility pop

#endif
