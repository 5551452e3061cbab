/* Ghosts: the uses of keys whose values are gone. */
#ifndef VRANGE_CACHE_GHOSTS_H
#define VRANGE_CACHE_GHOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t tag, uses, epoch;
    uint8_t state;
} ghost;

typedef struct {
    ghost *places;
    uint32_t room, used;
} ghost_table;

typedef struct {
    ghost_table young, old;
} ghosts;

/* `epoch` is the arena's, by which uses age. `entries` says how many ghosts are worth keeping. */
void ghosts_remember(ghosts *all, uint32_t hash, uint32_t uses, bool purged, uint32_t epoch, uint32_t entries);
uint32_t ghosts_uses(const ghosts *all, uint32_t hash, uint32_t epoch);
bool ghosts_was_purged(const ghosts *all, uint32_t hash);
void ghosts_forget(ghosts *all, uint32_t hash);
void ghosts_clear(ghosts *all);

/* The most bytes of the tables of all caches, beyond what their entries are worth. */
void ghosts_set_most(size_t bytes);

#endif
