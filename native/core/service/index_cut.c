/* Touches behind the end of an index's file; see index_cut.h.
 *
 * Any process of this user can cut the file, and so can a script that empties a directory. The kernel answers
 * the next touch of a page that is gone with SIGBUS. It does the same for a page that was taken out of the file
 * while the file system is full. */
#define _GNU_SOURCE
#include "service/index_cut.h"

#include <signal.h>
#include <stdatomic.h>

#include "base/fault_chain.h"
#include "base/gate.h"
#include "os/os.h"

static vrange_shared *_Atomic watched; /* none is ever taken out: a mapping stays until the process ends */

void index_cut_watch(vrange_shared *s) {
    if (atomic_exchange(&s->is_watched, true)) return;
    s->next = atomic_load(&watched);
    while (!atomic_compare_exchange_weak(&watched, &s->next, s)) {}
    gate_enter();
    fault_chain_keep(SIGBUS); /* refused: such a touch ends the process, as it would without us */
    gate_leave();
}

static fault_answer mend_cut(siginfo_t *info, void *context) {
    (void)context;
    if (info->si_code != BUS_ADRERR) return FAULT_FOREIGN;
    const char *at = info->si_addr;
    for (vrange_shared *s = atomic_load(&watched); s; s = s->next) {
        if (at < s->base || at >= s->base + s->bytes) continue;
        atomic_store(&s->is_cut, true);
        atomic_store(&s->own->identity, 0);
        return os_map_over(s->base, s->bytes) == 0 ? FAULT_MENDED : FAULT_FAILED;
    }
    return FAULT_FOREIGN;
}

__attribute__((constructor)) static void register_mend(void) {
    fault_chain_register(SIGBUS, mend_cut, SA_RESTART, true);
}
