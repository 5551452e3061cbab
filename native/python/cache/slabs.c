/* Slabs: ranges that many small values share, instead of a page each.
 *
 * A slab is a range cut into equal slots. A slot is larger than its value needs by less than 16 bytes, or by
 * at most an eighth. The slab knows the entry in each slot, because the kernel takes a slab as a whole and its
 * entries are lost with it. Free slots form a list through the same array. Nothing here runs Python. */
#include "python/cache/slabs.h"

#include <stdlib.h>
#include <string.h>

#include "vrange.h"

#define FREE_SLOT 0x80000000u /* in `owners`: | the next free slot, or LAST_FREE */
#define LAST_FREE 0x7fffffffu
#define SLOT_LEAST 16u
#define SLOT_HEAD 4 /* the length, before each value */
#define SLOT_BYTES_MOST 2304u /* of the class of SMALL_BYTES_MOST */

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

static void open_up(slab_table *slabs, slab *s) {
    s->previous = NULL;
    s->next = slabs->open[s->size_class];
    if (s->next) s->next->previous = s;
    slabs->open[s->size_class] = s;
}

static void shut(slab_table *slabs, slab *s) {
    if (s->next) s->next->previous = s->previous;
    if (s->previous) s->previous->next = s->next;
    else slabs->open[s->size_class] = s->next;
    s->previous = s->next = NULL;
}

static bool takes_values(const slab *s) { return s->used < s->slots && !s->is_read_only; }

slab *slabs_with_room(slab_table *slabs, size_t bytes) {
    uint32_t size_class;
    slot_bytes_for(bytes, &size_class);
    slab *s = slabs->open[size_class];
    while (s && vrange_is_away(s->handle)) { /* in the child of a fork */
        shut(slabs, s);
        s->is_read_only = true;
        s = slabs->open[size_class];
    }
    return s;
}

/* A number for a new slab; UINT32_MAX without memory. Freed numbers are linked through the array. */
static uint32_t take_number(slab_table *slabs) {
    if (!slabs->free) {
        const uint32_t room = slabs->room ? slabs->room * 2 : 16;
        slab **grown = realloc(slabs->all, room * sizeof *grown);
        if (!grown) return UINT32_MAX;
        slabs->all = grown;
        for (uint32_t i = room; i-- > slabs->room;) {
            slabs->all[i] = (slab *)(uintptr_t)(slabs->free << 1 | 1);
            slabs->free = i + 1;
        }
        slabs->room = room;
    }
    const uint32_t number = slabs->free - 1;
    slabs->free = (uint32_t)((uintptr_t)slabs->all[number] >> 1);
    return number;
}

slab *slabs_add(slab_table *slabs, uint64_t handle, size_t bytes) {
    uint32_t size_class;
    const uint32_t slot = slot_bytes_for(bytes, &size_class), slots = SLAB_BYTES / slot;
    slab *s = malloc(sizeof *s + slots * sizeof *s->owners);
    const uint32_t number = s ? take_number(slabs) : UINT32_MAX;
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
    slabs->all[number] = s;
    open_up(slabs, s);
    return s;
}

void slabs_remove(slab_table *slabs, slab *gone) {
    if (takes_values(gone)) shut(slabs, gone);
    slabs->all[gone->number] = (slab *)(uintptr_t)(slabs->free << 1 | 1);
    slabs->free = gone->number + 1;
    free(gone);
}

slab *slab_of(const slab_table *slabs, uint64_t place) {
    return slabs->all[(uint32_t)((place & ~PLACE_SLOT) >> SLOT_BITS)];
}

slab *slab_numbered(const slab_table *slabs, uint32_t number) {
    if (number >= slabs->room || (uintptr_t)slabs->all[number] & 1) return NULL;
    return slabs->all[number];
}

uint32_t slab_slot(uint64_t place) { return (uint32_t)place & ((1u << SLOT_BITS) - 1); }

bool slabs_write(slab_table *slabs, slab *to, const void *data, size_t bytes, entry_no owner,
                 uint64_t *place) {
    const uint32_t slot = to->free_first != NO_SLOT ? to->free_first : to->fresh;
    if (vrange_pin_whole(to->handle) != VRANGE_OK) return false;
    vrange_write_begins(to->handle, to->free_first != NO_SLOT); /* a child may know the slot's value before */
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
    if (!takes_values(to)) shut(slabs, to);
    *place = PLACE_SLOT | (uint64_t)to->number << SLOT_BITS | slot;
    return true;
}

/* A function of its own, so that its buffer is on the stack only while it runs. */
__attribute__((noinline)) static ssize_t read_slot_away(const slab *s, size_t offset, char *buffer) {
    char slot[SLOT_BYTES_MOST];
    uint32_t length;
    if (s->slot_bytes > sizeof slot) return -1;
    if (vrange_read_away(s->handle, offset, slot, s->slot_bytes) != VRANGE_OK) return -1;
    memcpy(&length, slot, sizeof length);
    if (length > SMALL_BYTES_MOST || length > s->slot_bytes - SLOT_HEAD) return -1;
    memcpy(buffer, slot + SLOT_HEAD, length);
    return (ssize_t)length;
}

ssize_t slabs_read(const slab_table *slabs, uint64_t place, char *buffer) {
    const slab *s = slab_of(slabs, place);
    const size_t offset = (size_t)slab_slot(place) * s->slot_bytes;
    if (vrange_is_away(s->handle)) return read_slot_away(s, offset, buffer);
    if (vrange_pin_whole(s->handle) != VRANGE_OK) return -1;
    const char *at = s->memory + offset;
    uint32_t length;
    memcpy(&length, at, sizeof length);
    memcpy(buffer, at + SLOT_HEAD, length);
    vrange_release(s->handle);
    return (ssize_t)length;
}

uint64_t slabs_free_slot(slab_table *slabs, uint64_t place) {
    slab *s = slab_of(slabs, place);
    const uint32_t slot = slab_slot(place);
    const bool was_full = s->used == s->slots;
    s->owners[slot] = FREE_SLOT | (s->free_first == NO_SLOT ? LAST_FREE : s->free_first);
    s->free_first = slot;
    s->used--;
    if (was_full && takes_values(s)) open_up(slabs, s);
    if (s->used) return 0;
    const uint64_t handle = s->handle;
    slabs_remove(slabs, s);
    return handle;
}

entry_no slab_owner(const slab *s, uint32_t slot) {
    return slot < s->fresh && !(s->owners[slot] & FREE_SLOT) ? s->owners[slot] : 0;
}

uint64_t slabs_dismantle(slab_table *slabs, uint32_t number) {
    slab *s = slab_numbered(slabs, number);
    const uint64_t handle = s ? s->handle : 0;
    free(s);
    return handle;
}
