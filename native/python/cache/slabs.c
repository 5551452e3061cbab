/* Slabs: ranges that many small values share, instead of a page each.
 *
 * A slab is a range cut into equal slots, of a size within an eighth of what is needed. It knows the entry
 * in each slot, because the kernel takes a slab as a whole and its entries go with it. Free slots form a
 * list through the same array. Nothing here runs Python. */
#include "python/cache/core.h"

#define FREE_SLOT 0x80000000u /* in `owners`: | the next free slot, or LAST_FREE */
#define LAST_FREE 0x7fffffffu
#define SLOT_LEAST 16u

/* Eight sizes an octave, 16 bytes at least. */
static uint32_t slot_bytes_for(size_t bytes, uint32_t *size_class) {
    const uint32_t wanted = (uint32_t)bytes + SLOT_HEAD;
    uint32_t step = SLOT_LEAST, class_before = 0;
    for (uint32_t end = 16 * SLOT_LEAST; wanted > end; end *= 2, step *= 2)
        class_before += class_before ? 8 : 16;
    const uint32_t slot = (wanted + step - 1) / step * step;
    *size_class = class_before ? class_before + (slot - 8 * step) / step - 1 : slot / step - 1;
    return slot;
}

slab *slabs_with_room(const cache_core *self, size_t bytes) {
    uint32_t size_class;
    slot_bytes_for(bytes, &size_class);
    return self->open[size_class];
}

static void open_up(cache_core *self, slab *s) {
    s->previous = NULL;
    s->next = self->open[s->size_class];
    if (s->next) s->next->previous = s;
    self->open[s->size_class] = s;
}

static void shut(cache_core *self, slab *s) {
    if (s->next) s->next->previous = s->previous;
    if (s->previous) s->previous->next = s->next;
    else self->open[s->size_class] = s->next;
    s->previous = s->next = NULL;
}

static bool is_full(const slab *s) { return s->used == s->slots; }

/* A number for one more; UINT32_MAX without memory. Freed numbers are linked through the array. */
static uint32_t take_number(cache_core *self) {
    if (!self->slab_free) {
        const uint32_t room = self->slab_room ? self->slab_room * 2 : 16;
        slab **grown = realloc(self->slabs, room * sizeof *grown);
        if (!grown) return UINT32_MAX;
        self->slabs = grown;
        for (uint32_t i = room; i-- > self->slab_room;) {
            self->slabs[i] = (slab *)(uintptr_t)(self->slab_free << 1 | 1);
            self->slab_free = i + 1;
        }
        self->slab_room = room;
    }
    const uint32_t number = self->slab_free - 1;
    self->slab_free = (uint32_t)((uintptr_t)self->slabs[number] >> 1);
    return number;
}

slab *slabs_add(cache_core *self, uint64_t handle, size_t bytes) {
    uint32_t size_class;
    const uint32_t slot = slot_bytes_for(bytes, &size_class), slots = SLAB_BYTES / slot;
    slab *s = malloc(sizeof *s + slots * sizeof *s->owners);
    const uint32_t number = s ? take_number(self) : UINT32_MAX;
    if (number == UINT32_MAX) {
        free(s);
        return NULL;
    }
    *s = (slab){.handle = handle,
                .memory = vrange_address(handle),
                .number = number,
                .slot_bytes = slot,
                .slots = slots,
                .free_first = NO_SLOT,
                .size_class = size_class};
    vrange_set_owner(handle, SLAB_OWNER | number);
    self->slabs[number] = s;
    open_up(self, s);
    return s;
}

void slabs_remove(cache_core *self, slab *gone) {
    if (!is_full(gone)) shut(self, gone);
    self->slabs[gone->number] = (slab *)(uintptr_t)(self->slab_free << 1 | 1);
    self->slab_free = gone->number + 1;
    free(gone);
}

slab *slab_of(const cache_core *self, uint64_t place) {
    return self->slabs[(uint32_t)((place & ~PLACE_SLOT) >> SLOT_BITS)];
}

slab *slab_numbered(const cache_core *self, uint32_t number) {
    if (number >= self->slab_room || (uintptr_t)self->slabs[number] & 1) return NULL;
    return self->slabs[number];
}

static uint32_t slot_of(uint64_t place) { return (uint32_t)place & ((1u << SLOT_BITS) - 1); }

bool slabs_write(cache_core *self, slab *to, const void *data, size_t bytes, entry_no owner,
                 uint64_t *place) {
    const uint32_t slot = to->free_first != NO_SLOT ? to->free_first : to->fresh;
    if (vrange_pin_whole(to->handle) != VRANGE_OK) return false;
    char *at = to->memory + (size_t)slot * to->slot_bytes;
    const uint32_t length = (uint32_t)bytes;
    memcpy(at, &length, sizeof length);
    memcpy(at + SLOT_HEAD, data, bytes);
    vrange_release(to->handle);
    if (to->free_first == NO_SLOT) {
        to->fresh++;
    } else {
        const uint32_t next = to->owners[slot] & ~FREE_SLOT;
        to->free_first = next == LAST_FREE ? NO_SLOT : next;
    }
    to->owners[slot] = owner;
    to->used++;
    if (is_full(to)) shut(self, to);
    *place = PLACE_SLOT | (uint64_t)to->number << SLOT_BITS | slot;
    return true;
}

Py_ssize_t slabs_read(const cache_core *self, uint64_t place, char *buffer) {
    const slab *s = slab_of(self, place);
    if (vrange_pin_whole(s->handle) != VRANGE_OK) return -1;
    const char *at = s->memory + (size_t)slot_of(place) * s->slot_bytes;
    uint32_t length;
    memcpy(&length, at, sizeof length);
    memcpy(buffer, at + SLOT_HEAD, length);
    vrange_release(s->handle);
    return (Py_ssize_t)length;
}

uint64_t slabs_free_slot(cache_core *self, uint64_t place) {
    slab *s = slab_of(self, place);
    const uint32_t slot = slot_of(place);
    if (is_full(s)) open_up(self, s);
    s->owners[slot] = FREE_SLOT | (s->free_first == NO_SLOT ? LAST_FREE : s->free_first);
    s->free_first = slot;
    if (--s->used) return 0;
    const uint64_t handle = s->handle;
    slabs_remove(self, s);
    return handle;
}

entry_no slab_owner(const slab *s, uint32_t slot) {
    return slot < s->fresh && !(s->owners[slot] & FREE_SLOT) ? s->owners[slot] : 0;
}
