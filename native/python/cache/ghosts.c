/* Ghosts: for keys whose values are gone, how often they were used and whether the kernel took them.
 *
 * A ghost keeps a popular value popular: after it was lost and stored again, it is not the first to be
 * evicted. Ghosts are stored by the hash of their key. Two keys with the same hash share a ghost, which at
 * worst causes a wrong guess.
 *
 * There are two tables. A new ghost goes into the young table. When the young table has as many ghosts as the
 * cache has entries (4096 at least), it becomes the old table, and the previous old table is freed. So the
 * number of ghosts is bounded, the oldest are forgotten first, and no ghost is ever moved. */
#include "python/cache/ghosts.h"

#include <stdlib.h>

#define GHOSTS_LEAST 4096u
#define GHOSTS_MOST (1u << 24)

enum {
    EMPTY,
    DEAD,
    EVICTED,
    PURGED,
};

/* Where the ghost is or would be; NULL: the table has no room. */
static ghost *look(const ghost_table *table, uint32_t hash) {
    if (!table->room) return NULL;
    uint32_t place = hash & (table->room - 1);
    for (uint32_t tries = 0; tries < table->room; tries++, place = (place + 1) & (table->room - 1)) {
        ghost *g = &table->places[place];
        if (g->state == EMPTY || g->tag == hash) return g;
    }
    return NULL;
}

static void turn_over(ghosts *all, uint32_t entries) {
    uint32_t room = 2 * GHOSTS_LEAST;
    while (room < 2 * entries && room < GHOSTS_MOST) room *= 2;
    ghost *places = calloc(room, sizeof *places);
    if (!places) return; /* the young table stays full, and new ghosts are dropped: they only help */
    free(all->old.places);
    all->old = all->young;
    all->young = (ghost_table){.places = places, .room = room};
}

void ghosts_remember(ghosts *all, uint32_t hash, uint32_t uses, bool purged, uint32_t epoch, uint32_t entries) {
    ghosts_forget(all, hash);
    if (all->young.used >= all->young.room / 2) turn_over(all, entries);
    ghost *g = look(&all->young, hash);
    if (!g || (g->state == EMPTY && all->young.used >= all->young.room / 2)) return;
    if (g->state == EMPTY) all->young.used++;
    *g = (ghost){.tag = hash,
                 .uses = uses,
                 .epoch = epoch,
                 .state = purged ? PURGED : EVICTED};
}

static ghost *find(const ghosts *all, uint32_t hash) {
    const ghost_table *tables[] = {&all->young, &all->old};
    for (int i = 0; i < 2; i++) {
        ghost *g = look(tables[i], hash);
        if (g && g->state > DEAD) return g;
    }
    return NULL;
}

uint32_t ghosts_uses(const ghosts *all, uint32_t hash, uint32_t epoch) {
    const ghost *g = find(all, hash);
    if (!g) return 0;
    const uint32_t epochs = epoch - g->epoch;
    return epochs < 32 ? g->uses >> epochs : 0;
}

bool ghosts_was_purged(const ghosts *all, uint32_t hash) {
    const ghost *g = find(all, hash);
    return g && g->state == PURGED;
}

void ghosts_forget(ghosts *all, uint32_t hash) {
    ghost *g;
    while ((g = find(all, hash))) g->state = DEAD;
}

void ghosts_clear(ghosts *all) {
    free(all->young.places);
    free(all->old.places);
    all->young = all->old = (ghost_table){0};
}
