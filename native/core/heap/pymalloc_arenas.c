/* The arenas of the interpreter's allocator, each with the interpreter that it belongs to. From 3.12 on an
 * interpreter may have a GIL and pools of its own; walking another interpreter's pools would read memory
 * while it is written. This file calls no Python, because every fork of the process waits for its lock. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "heap/heap_peak.h"
#include "heap/pymalloc_arenas.h"
#include "os/os.h"
#include "os/os_thread.h"

typedef struct {
    uintptr_t address; /* 0: empty */
    int64_t interpreter;
} slot;

#define CAPACITY_LEAST 256 /* one page */

/* A hash table with linear probing, at most half full. The lock is needed because a thread of an
 * interpreter with its own GIL may call at any time. Nothing under it may allocate Python objects. */
static struct {
    pthread_mutex_t lock;
    slot *slots;
    size_t capacity, count;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

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

/* The heap gives way to what the interpreter has. Without the lock, since that takes the heap's. */
static void unlock_and_tell(void) {
    const size_t bytes = table.count * PYMALLOC_ARENA_BYTES;
    pthread_mutex_unlock(&table.lock);
    heap_note_elsewhere(bytes);
}

void pymalloc_note(uintptr_t address, int64_t interpreter) {
    pthread_mutex_lock(&table.lock);
    if (2 * (table.count + 1) <= table.capacity || grow()) {
        slot *place = find(address);
        if (!place->address) table.count++;
        *place = (slot){address, interpreter};
    }
    unlock_and_tell();
}

void pymalloc_forget(uintptr_t address) {
    pthread_mutex_lock(&table.lock);
    slot *place = find(address);
    if (place && place->address) {
        table.count--;
        /* Move up each slot behind the gap that the gap would cut off from its home. */
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
    unlock_and_tell();
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

/* ---- fork ------------------------------------------------------------------------------------- */

void pymalloc_renew_lock(void) {
    if (!os_lock_renew(&table.lock)) return;
    table.slots = NULL;
    table.capacity = table.count = 0;
}

void pymalloc_before_fork(void) { pthread_mutex_lock(&table.lock); }

void pymalloc_after_fork(void) { pthread_mutex_unlock(&table.lock); }
