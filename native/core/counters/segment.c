/* The stats segment's place and its life: made at the first count, removed at exit.
 *
 * Counting must never end or slow a process. So if anything goes wrong here, the segment is private memory
 * instead of a file. The process goes on counting, and its own exporter reports the counts; only readers
 * outside find nothing. vrange_segment_refusal returns the reason, and Python warns once.
 *
 * A fork shares MAP_SHARED memory, so the child would go on writing into its parent's counters. The fork
 * handler puts a fresh segment over the inherited one, at the same address: every pointer to an account
 * stays valid. */
#define _GNU_SOURCE
#include "counters/segment.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"
#include "os/os_kept_descriptors.h"
#include "counters/segment_cut.h"
#include "counters/tally.h"

#define PATH_BYTES 512

_Static_assert(sizeof(segment_header) <= SEGMENT_PAGE, "the header has one page");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock would not be shared with the reader");

segment_header *_Atomic segment_here;

enum {
    UNMADE,
    MAKING,
    MADE,
};

static struct {
    _Atomic int state;
    char path[PATH_BYTES]; /* empty: no file was made, and the segment is in memory only */
    char refusal[PATH_BYTES + 128];
} place;

/* Otherwise the segment is in memory only. */
static bool has_file(void) { return place.path[0] && !segment_is_cut(); }

segment_histogram *segment_shard(segment_header *segment, uint32_t shard) {
    return (segment_histogram *)(void *)((char *)segment + SEGMENT_LATENCIES_AT + shard * SEGMENT_SHARD_STRIDE);
}

bool segment_back(segment_header *segment, void *part, size_t bytes) {
    const uintptr_t page = os_page_bytes(), begin = (uintptr_t)part & ~(page - 1);
    const size_t length = (uintptr_t)part + bytes - begin;
    const int result = os_populate((void *)begin, length);
    if (result != -EINVAL) return result == 0;
    /* Linux before 5.14. Memory without a file is ordinary memory, and is allocated at the first touch. */
    return !place.path[0] || os_allocate(place.path, begin - (uintptr_t)segment, length) == 0;
}

/* ---- the place of the file --------------------------------------------------------------------- */

/* The places of the directory. Writers skip OF_LOGIN: a service and a shell may differ in $XDG_RUNTIME_DIR, so
 * readers look there too. */
enum {
    BY_VARIABLE,
    OF_SESSION,
    OF_LOGIN,
    IN_MEMORY,
};

/* -ENOENT if this process has no such place. A truncated path would name another directory: it is refused. */
static int directory_at(size_t which, char *directory, size_t bytes) {
    const char *told = secure_getenv("VRANGE_RUNTIME_DIR"), *runtime = secure_getenv("XDG_RUNTIME_DIR");
    const unsigned user = (unsigned)os_user_id();
    int length;
    if (which == BY_VARIABLE) {
        if (!told || !*told) return -ENOENT;
        length = snprintf(directory, bytes, "%s", told);
    } else if (which == OF_SESSION) {
        if (!runtime || *runtime != '/') return -ENOENT;
        length = snprintf(directory, bytes, "%s/vrange", runtime);
    } else if (which == OF_LOGIN) {
        length = snprintf(directory, bytes, "/run/user/%u/vrange", user);
    } else {
        length = snprintf(directory, bytes, "/dev/shm/vrange-%u", user);
    }
    return length < (int)bytes ? 0 : -ENAMETOOLONG;
}

int vrange_segment_directory(size_t which, char *directory, size_t bytes) {
    if (which >= VRANGE_SEGMENT_PLACES) return -EINVAL;
    const int told = directory_at(BY_VARIABLE, directory, bytes);
    if (which == BY_VARIABLE) return told;
    return told == -ENOENT ? directory_at(which, directory, bytes) : -ENOENT; /* told: it is the only place */
}

/* The directory, made if it does not exist. */
static int find_directory(char *directory, size_t bytes) {
    int result = directory_at(BY_VARIABLE, directory, bytes);
    if (result != -ENOENT) return result < 0 ? result : os_private_directory(directory);
    if (directory_at(OF_SESSION, directory, bytes) == 0 && os_private_directory(directory) == 0) return 0;
    result = directory_at(IN_MEMORY, directory, bytes);
    return result < 0 ? result : os_private_directory(directory);
}

#define DIGITS "0123456789"

/* The process's id and its start: "PID-TICKS.stats". The whole name counts, because a service "2024-11" has a
 * ledger whose name begins alike. */
int vrange_is_segment_name(const char *name) {
    const size_t pid = strspn(name, DIGITS);
    if (pid < 1 || pid > 10 || name[pid] != '-') return 0;
    name += pid + 1;
    const size_t ticks = strspn(name, DIGITS);
    return ticks >= 1 && ticks <= 20 && strcmp(name + ticks, ".stats") == 0;
}

/* Removes what a killed process left. Writers do this too: a program that forks short-lived children which
 * end by os._exit, and whose metrics are never scraped, would fill the directory. A reader that sums a
 * service folds those counts in first. */
static void remove_if_dead(const char *path, const char *name) {
    unsigned pid = 0;
    if (!vrange_is_segment_name(name) || sscanf(name, "%10u", &pid) != 1 || pid == 0) return;
    const int in_use = os_is_in_use(path);
    if (in_use > 0 || (in_use < 0 && os_process_exists(pid))) return;
    int file = -1;
    segment_header head;
    if (os_open_to_read(path, &file) < 0) return;
    os_held held;
    os_note(file, path, &held);
    int result = os_read_at(file, &head, sizeof head, 0);
    os_let_go(&held);
    /* Where only the id shows whether the process lives, it shows that in one PID namespace. */
    const bool is_dead = in_use == 0 || head.pid_namespace == os_process_namespace();
    const bool is_segment = result == 0 && memcmp(head.magic, SEGMENT_MAGIC, sizeof head.magic) == 0;
    if (is_segment && is_dead && !(atomic_load(&head.flags) & SEGMENT_KEPT)) os_remove(path);
}

int vrange_segment_is_in_use(const char *path) { return os_is_in_use(path); }

int vrange_process_runs(uint64_t pid, uint64_t *start_ticks, uint64_t *stack_start) {
    os_process found = {0};
    const int state = pid > UINT32_MAX ? OS_PROCESS_GONE : os_process_look((uint32_t)pid, &found);
    *start_ticks = found.start_ticks;
    *stack_start = found.stack_start;
    return state != OS_PROCESS_GONE;
}

static segment_header *refuse(const char *where, int error) {
    snprintf(place.refusal, sizeof place.refusal, "%s: %s", where, strerror(-error));
    place.path[0] = 0;
    return NULL;
}

static bool back_beginning(segment_header *segment) {
    return segment_back(segment, segment, (1u + VRANGE_KINDS) * SEGMENT_PAGE) &&
           segment_back(segment, segment_shard(segment, 0), SEGMENT_SHARD_STRIDE);
}

static segment_header *make_file(uint64_t start_ticks) {
    char directory[PATH_BYTES - 64];
    int result = find_directory(directory, sizeof directory);
    if (result < 0) return refuse(directory, result);
    os_each_file(directory, remove_if_dead);
    snprintf(place.path, sizeof place.path, "%s/%u-%llu.stats", directory, (unsigned)os_process_id(),
             (unsigned long long)start_ticks);
    void *segment = NULL;
    result = os_share(place.path, SEGMENT_BYTES, &segment);
    if (result == -EEXIST) {
        /* It is this process's own, from before an exec. */
        os_remove(place.path);
        result = os_share(place.path, SEGMENT_BYTES, &segment);
    }
    if (result < 0) return refuse(place.path, result);
    if (!back_beginning(segment)) {
        os_remove(place.path);
        os_unreserve(segment, SEGMENT_BYTES);
        return refuse(place.path, -ENOSPC);
    }
    return segment;
}

/* ---- what the header says of the process ------------------------------------------------------- */

static void describe(segment_header *segment, uint64_t start_ticks, uint64_t stack_start) {
    memcpy(segment->magic, SEGMENT_MAGIC, sizeof segment->magic);
    segment->version = SEGMENT_VERSION;
    segment->header_bytes = sizeof *segment;
    segment->bytes = SEGMENT_BYTES;
    segment->pid = os_process_id();
    segment->uid = os_user_id();
    segment->start_ticks = start_ticks;
    segment->stack_start = stack_start;
    segment->pid_namespace = os_process_namespace();
    segment->group = os_process_group();
    segment->accounts_at = SEGMENT_PAGE;
    segment->account_bytes = SEGMENT_PAGE;
    segment->accounts = SEGMENT_ACCOUNTS;
    segment->regenerate_at = offsetof(segment_slot, regenerate);
    segment->latencies_at = SEGMENT_LATENCIES_AT;
    segment->shard_bytes = SEGMENT_SHARD_STRIDE;
    segment->shards = SEGMENT_SHARDS;
    segment->overflow_at = SEGMENT_OVERFLOW_AT;
    segment->overflow_bytes = SEGMENT_OVERFLOW_BYTES;
    segment->overflows = SEGMENT_OVERFLOWS;
    segment->kinds = VRANGE_KINDS;
    segment->latencies = VRANGE_LATENCIES;
    segment->buckets = VRANGE_BUCKETS;
    const char *service = secure_getenv("VRANGE_SERVICE");
    if (service) strncpy(segment->service, service, sizeof segment->service - 1);
    os_command(segment->name, sizeof segment->name);
    for (uint32_t kind = 0; kind < VRANGE_KINDS; kind++) {
        segment_account *other = segment_account_at(segment, kind);
        other->kind = kind;
        strcpy(other->name, "other");
    }
    atomic_store(&segment->accounts_used, VRANGE_KINDS);
}

static segment_header *make(void) {
    uint64_t start_ticks = 0;
    uint64_t stack_start = 0;
    int result = os_process_start(&start_ticks, &stack_start);
    place.refusal[0] = 0;
    segment_header *segment = result < 0 ? refuse("/proc/self/stat", result) : make_file(start_ticks);
    if (!segment) segment = os_map(SEGMENT_BYTES);
    if (segment) describe(segment, start_ticks, stack_start);
    return segment;
}

static void publish(segment_header *segment) {
    atomic_fetch_or_explicit(&segment->flags, SEGMENT_READY, memory_order_release);
}

segment_header *segment_make(void) {
    /* No lock here: if another thread held it at a fork, it would stay locked in the child. */
    for (;;) {
        segment_header *segment = atomic_load_explicit(&segment_here, memory_order_acquire);
        if (segment) return segment;
        int before = UNMADE;
        if (atomic_compare_exchange_strong(&place.state, &before, MAKING)) {
            segment = make();
            if (segment) publish(segment);
            if (segment && place.path[0]) segment_cut_watch(segment);
            atomic_store_explicit(&segment_here, segment, memory_order_release);
            atomic_store(&place.state, segment ? MADE : UNMADE);
            return segment;
        }
        if (before == MAKING) os_sleep_ns(20000);
    }
}

/* ---- fork and exit ---------------------------------------------------------------------------- */

/* False if there is no memory to put behind the slots. */
static bool copy_gauges(segment_header *to, segment_header *from) {
    const uint32_t used = atomic_load(&from->accounts_used);
    for (uint32_t slot = 0; slot < used; slot++) {
        segment_account *copy = segment_account_at(to, slot);
        if (!segment_back(to, copy, sizeof(segment_slot))) return false;
        segment_copy_slot(copy, segment_account_at(from, slot));
        atomic_store(&to->accounts_used, slot < VRANGE_KINDS ? VRANGE_KINDS : slot + 1);
    }
    const uint32_t overflows = atomic_load(&from->overflow_used);
    if (!overflows) return true;
    segment_account *first = segment_account_at(to, SEGMENT_ACCOUNTS);
    if (!segment_back(to, first, (size_t)overflows * SEGMENT_OVERFLOW_BYTES)) return false;
    for (uint32_t slot = SEGMENT_ACCOUNTS; slot < SEGMENT_ACCOUNTS + overflows; slot++)
        segment_copy_slot(segment_account_at(to, slot), segment_account_at(from, slot));
    atomic_store(&to->overflow_used, overflows);
    return true;
}

/* In one step, as all threads hold pointers into it. If a sandbox refuses mremap, it maps over the old
 * one. */
static int put_in_place(segment_header *own, segment_header *inherited) {
    int result = os_replace(own, inherited, SEGMENT_BYTES);
    if (result == 0) return 0;
    if (place.path[0]) {
        result = os_share_over(place.path, SEGMENT_BYTES, inherited);
    } else {
        result = os_map_over(inherited, SEGMENT_BYTES);
        if (result == 0) memcpy(inherited, own, SEGMENT_BYTES);
    }
    os_unreserve(own, SEGMENT_BYTES);
    return result;
}

void segment_after_fork(void) {
    segment_header *inherited = atomic_load(&segment_here);
    if (!inherited) {
        atomic_store(&place.state, UNMADE); /* another thread was just making it */
        return;
    }
    segment_header *own = make();
    if (own) {
        if (!copy_gauges(own, inherited)) {
            /* Touching an account without memory behind it would raise SIGBUS. */
            if (place.path[0]) os_remove(place.path);
            os_unreserve(own, SEGMENT_BYTES);
            refuse("a segment for the child of a fork", -ENOSPC);
            own = os_map(SEGMENT_BYTES);
            if (own) {
                describe(own, 0, 0);
                copy_gauges(own, inherited);
            }
        }
    }
    if (own) {
        atomic_store(&own->rung, atomic_load(&inherited->rung));
        atomic_store(&own->flags, atomic_load(&inherited->flags) & SEGMENT_KEPT);
        publish(own);
    }
    if (!own || put_in_place(own, inherited) < 0) {
        /* Counting into the parent's segment would give wrong figures for both. */
        static const char message[] = "vrange: no memory for a child's own counters after fork\n";
        os_complain(message, sizeof message - 1);
        abort();
    }
    if (place.path[0]) segment_cut_watch(inherited);
}

__attribute__((destructor)) static void remove_at_exit(void) {
    segment_header *segment = atomic_load(&segment_here);
    if (!segment || !place.path[0]) return;
    if (has_file() && atomic_load(&segment->flags) & SEGMENT_KEPT) return;
    /* A child that was made without our fork handler has the parent's segment, and must leave it. */
    if (segment->pid == os_process_id()) os_remove(place.path);
}

/* ---- for Python ------------------------------------------------------------------------------- */

const char *segment_path(void) {
    return atomic_load(&segment_here) && has_file() ? place.path : NULL;
}

const char *vrange_segment_path(void) { return segment_make() ? segment_path() : NULL; }

const char *vrange_segment_refusal(void) {
    if (segment_make() && segment_is_cut()) return "other code cut its file short";
    return atomic_load(&segment_here) && !place.refusal[0] ? NULL : place.refusal;
}

void *vrange_segment_address(void) { return segment_make(); }

size_t vrange_segment_bytes(void) { return SEGMENT_BYTES; }

void vrange_segment_keep(int kept) {
    segment_header *segment = segment_make();
    if (!segment) return;
    if (kept) atomic_fetch_or(&segment->flags, SEGMENT_KEPT);
    else atomic_fetch_and(&segment->flags, ~SEGMENT_KEPT);
}
