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
    ghost *gone; /* a table that is to be freed without the GIL: limbo_drain */
} ghosts;

/* `epoch` is the arena's, by which uses age. `entries` says how many ghosts are worth keeping. */
void ghosts_remember(ghosts *all, uint32_t hash, uint32_t uses, bool purged, uint32_t epoch, uint32_t entries);
uint32_t ghosts_uses(const ghosts *all, uint32_t hash, uint32_t epoch);
bool ghosts_was_purged(const ghosts *all, uint32_t hash);
void ghosts_forget(ghosts *all, uint32_t hash);
void ghosts_clear(ghosts *all);

/* Takes off a table that was outgrown and that takes long to free. The caller frees it. NULL: there is none. */
ghost *ghosts_take_gone(ghosts *all);

/* Takes all tables off. The caller frees them, without the GIL if they are large. Returns their bytes. */
#define GHOST_TABLES 3
size_t ghosts_let_go(ghosts *all, ghost *gone[GHOST_TABLES]);

/* The most bytes of the tables of all caches, beyond what their entries are worth. */
void ghosts_set_most(size_t bytes);

#endif
