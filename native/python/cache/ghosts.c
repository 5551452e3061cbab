/* Ghosts: for keys whose values are gone, how often they were used and whether the kernel took them.
 *
 * A ghost keeps a popular value popular: after it was lost and stored again, it is not the first to be
 * evicted. Ghosts are stored by the hash of their key. Two keys with the same hash share a ghost, which at
 * worst causes a wrong guess.
 *
 * There are two tables. A new ghost goes into the young table. When the young table is full, it becomes the
 * old table, and the previous old table is freed. So the number of ghosts is bounded, the oldest are forgotten
 * first, and no ghost is ever moved. Each table is twice as large as the one before, until it has room for as
 * many ghosts as the cache has entries, or for 4096. The kernel can't take these tables, so thousands of
 * caches together must not have 4096 ghosts each: beyond a bound for the process, a cache has few more than
 * entries. */
#include "python/cache/ghosts.h"

#include <stdlib.h>

#define FIRST_ROOM 128u
#define GHOSTS_LEAST 4096u
#define GHOSTS_MOST (1u << 24)
#define ROOM_THAT_TAKES_LONG (1u << 16) /* to free */

static struct {
    size_t bytes, bytes_most; /* of the tables of all caches; whenever one is made */
} tables = {.bytes_most = SIZE_MAX};

void ghosts_set_most(size_t bytes) { tables.bytes_most = bytes; }

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

/* The caller frees what is returned. */
static ghost *take_off(ghost_table *table) {
    ghost *places = table->places;
    tables.bytes -= table->room * sizeof *places;
    *table = (ghost_table){0};
    return places;
}

static uint32_t next_room(const ghosts *all, uint32_t entries) {
    uint32_t wanted = FIRST_ROOM;
    while (wanted < 2 * entries && wanted < GHOSTS_MOST) wanted *= 2;
    const uint32_t more = all->young.room ? 2 * all->young.room : FIRST_ROOM;
    if (more <= wanted) return more;
    const uint32_t least = more < 2 * GHOSTS_LEAST ? more : 2 * GHOSTS_LEAST;
    const bool has_room = tables.bytes + least * sizeof(ghost) <= tables.bytes_most;
    return has_room && least > wanted ? least : wanted;
}

static void turn_over(ghosts *all, uint32_t entries) {
    const uint32_t room = next_room(all, entries);
    ghost *places = calloc(room, sizeof *places);
    if (!places) return; /* the young table stays full, and new ghosts are dropped: they only help */
    tables.bytes += room * sizeof *places;
    const bool takes_long = all->old.room >= ROOM_THAT_TAKES_LONG && !all->gone;
    ghost *before = take_off(&all->old);
    if (takes_long) all->gone = before;
    else free(before);
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
    const ghost_table *both[] = {&all->young, &all->old};
    for (int i = 0; i < 2; i++) {
        ghost *g = look(both[i], hash);
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

ghost *ghosts_take_gone(ghosts *all) {
    ghost *gone = all->gone;
    all->gone = NULL;
    return gone;
}

size_t ghosts_let_go(ghosts *all, ghost *gone[GHOST_TABLES]) {
    const size_t before = tables.bytes;
    gone[0] = take_off(&all->young);
    gone[1] = take_off(&all->old);
    gone[2] = ghosts_take_gone(all);
    return before - tables.bytes;
}

void ghosts_clear(ghosts *all) {
    ghost *gone[GHOST_TABLES];
    ghosts_let_go(all, gone);
    for (int i = 0; i < GHOST_TABLES; i++) free(gone[i]);
}
