/* Touches behind the end of the segment's file; see segment_cut.h.
 *
 * Any process of this user can cut the file, and so can a script that empties a directory. The kernel answers
 * the next touch of a page that is gone with SIGBUS. By then nothing can be read from the file. So a spare
 * segment has a copy of what must not be lost, and the handler moves it over the file's mapping in one step: no
 * thread sees a segment that is half made.
 *
 * The spare's own address keeps a mapping, because another thread may be noting something there. */
#define _GNU_SOURCE
#include "counters/segment_cut.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/fault_chain.h"
#include "counters/segment_slots.h"
#include "os/os.h"
#include "os/os_thread.h"

static char *_Atomic watched;         /* NULL: no file was mapped */
static segment_header *_Atomic spare; /* NULL: there is none, or it is in place, or will be in a moment */
static _Atomic bool is_cut;
static _Atomic uint32_t cuts;

bool segment_is_cut(void) { return atomic_load(&is_cut); }

uint32_t segment_cuts(void) { return atomic_load(&cuts); }

void segment_cut_arm(void) {
    if (atomic_load(&watched)) fault_chain_keep(SIGBUS); /* refused: a cut ends the process, as without us */
}

/* ---- the spare ----------------------------------------------------------------------------------- */

/* Word by word, as other threads count meanwhile. */
static void copy_header(segment_header *to, const segment_header *from) {
    _Static_assert(sizeof *to % sizeof(uint64_t) == 0, "the header is copied in words");
    _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)to;
    const _Atomic uint64_t *other = (const _Atomic uint64_t *)(const void *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *words; i++)
        atomic_store_explicit(&words[i], atomic_load_explicit(&other[i], memory_order_relaxed),
                              memory_order_relaxed);
    atomic_store(&to->turn, atomic_load(&from->turn) & ~UINT64_C(1)); /* no counts move in the copy */
}

static void copy_all(segment_header *to, segment_header *from) {
    copy_header(to, from);
    const uint32_t used = atomic_load(&to->accounts_used);
    const uint32_t end = SEGMENT_ACCOUNTS + atomic_load(&to->overflow_used);
    for (uint32_t slot = 0; slot < used; slot++)
        segment_copy_slot(segment_account_at(to, slot), segment_account_at(from, slot));
    for (uint32_t slot = SEGMENT_ACCOUNTS; slot < end; slot++)
        segment_copy_slot(segment_account_at(to, slot), segment_account_at(from, slot));
}

/* If the file is cut just now, the copy goes to memory that is not used any more. */
void segment_cut_note(segment_header *segment) {
    segment_header *const to = atomic_load(&spare);
    if (to) copy_all(to, segment);
}

void segment_cut_note_header(const segment_header *segment) {
    segment_header *const to = atomic_load(&spare);
    if (to) copy_header(to, segment);
}

void segment_cut_note_slot(segment_header *segment, uint32_t slot) {
    segment_header *const to = atomic_load(&spare);
    if (!to) return;
    segment_copy_slot(segment_account_at(to, slot), segment_account_at(segment, slot));
    copy_header(to, segment);
}

void segment_cut_watch(segment_header *segment) {
    atomic_store(&watched, NULL);
    segment_header *to = atomic_load(&spare);
    if (!to) to = os_map(SEGMENT_BYTES);
    if (!to) return;
    copy_all(to, segment);
    atomic_store(&is_cut, false);
    atomic_store(&spare, to);
    atomic_store(&watched, (char *)segment);
}

/* ---- the handler --------------------------------------------------------------------------------- */

static bool put_over(char *base, segment_header *taken) {
    if (os_move_pages(base, taken, SEGMENT_BYTES) == 0) return true;
    /* Before Linux 5.7, and where a sandbox refuses it. */
    if (os_map_over(base, SEGMENT_BYTES) < 0) return false;
    memcpy(base, taken, SEGMENT_BYTES);
    return true;
}

static void tell(void) {
    static const char message[] =
        "vrange: other code cut the file of this process's counters short. The process counts on, from zero, "
        "in memory of its own, and other processes don't see it any more\n";
    os_complain(message, sizeof message - 1);
}

static fault_answer mend_cut(siginfo_t *info, void *context) {
    (void)context;
    if (info->si_code != BUS_ADRERR) return FAULT_FOREIGN;
    char *const base = atomic_load(&watched), *const at = info->si_addr;
    if (!base || at < base || at >= base + SEGMENT_BYTES) return FAULT_FOREIGN;
    /* A handler that interrupts this one may count as well, and would wait for it for ever. The return from the
     * handler undoes this. */
    sigset_t all;
    sigfillset(&all);
    os_block_signals(&all);
    segment_header *const taken = atomic_exchange(&spare, NULL);
    if (!taken) return FAULT_MENDED; /* another thread is just putting it in place: the touch is tried again */
    atomic_store(&is_cut, true);
    atomic_fetch_add(&cuts, 1);
    if (!put_over(base, taken)) return FAULT_FAILED;
    tell();
    return FAULT_MENDED;
}

__attribute__((constructor)) static void register_mend(void) {
    fault_chain_register(SIGBUS, mend_cut, SA_RESTART, true);
}
