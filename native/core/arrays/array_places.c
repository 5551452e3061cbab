/* The addresses of this process's arrays: for the handler, and for code that walks all arrays.
 *
 * The handler can't lock, and arrays are opened and closed while it searches. So this table holds what it
 * may read of an array that is just being closed, and `readers` protects the rest. A place is emptied
 * first; the array is freed when no reader is left. */
#include "arrays/array_places.h"

#include <errno.h>
#include <stdatomic.h>

#include "os/os.h"

#define ARRAYS_MOST 1024

static struct place {
    vrange_array *_Atomic array;
    _Atomic uintptr_t base;
    _Atomic size_t bytes;
    _Atomic uint32_t readers;
} places[ARRAYS_MOST];
static _Atomic uint32_t places_end;

bool arrays_exist(void) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        if (atomic_load(&places[i].array)) return true;
    }
    return false;
}

uint32_t places_count(void) { return atomic_load(&places_end); }

vrange_array *place_enter(uint32_t number) {
    struct place *place = &places[number];
    if (!atomic_load(&place->array)) return NULL;
    atomic_fetch_add(&place->readers, 1);
    vrange_array *array = atomic_load(&place->array);
    if (!array) atomic_fetch_sub(&place->readers, 1);
    return array;
}

void place_leave(uint32_t number) { atomic_fetch_sub(&places[number].readers, 1); }

vrange_array *array_at(const void *address) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        /* A hint: the two may belong to different arrays, if one was closed and another opened meanwhile. */
        if ((uintptr_t)address - atomic_load(&places[i].base) >= atomic_load(&places[i].bytes)) continue;
        vrange_array *array = place_enter(i);
        if (!array) continue;
        bool inside = (size_t)((const char *)address - array->base) < array->mapped_bytes;
        place_leave(i);
        if (inside) return array; /* it stays open: code that touches an array has a view of it */
    }
    return NULL;
}

int place_add(vrange_array *array) {
    for (uint32_t i = 0; i < ARRAYS_MOST; i++) {
        vrange_array *expected = NULL;
        if (!atomic_compare_exchange_strong(&places[i].array, &expected, array)) continue;
        atomic_store(&places[i].base, (uintptr_t)array->base);
        atomic_store(&places[i].bytes, array->mapped_bytes);
        uint32_t end = atomic_load(&places_end);
        while (end < i + 1 && !atomic_compare_exchange_weak(&places_end, &end, i + 1)) {
        }
        return 0;
    }
    return -EMFILE;
}

void place_remove(vrange_array *array) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) {
        if (atomic_load(&places[i].array) != array) continue;
        atomic_store(&places[i].bytes, 0);
        atomic_store(&places[i].array, NULL);
        while (atomic_load(&places[i].readers)) os_yield();
        return;
    }
}

void places_forget_readers(void) {
    for (uint32_t i = 0; i < atomic_load(&places_end); i++) atomic_store(&places[i].readers, 0);
}
