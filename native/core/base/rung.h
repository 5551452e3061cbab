/* The rung: which mechanism this machine allows, found by a trial, and the userfaultfd of the highest one. A
 * process can fall to a lower rung later, and never climbs. */
#ifndef VRANGE_RUNG_H
#define VRANGE_RUNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The userfaultfd that every arena is registered with; -1 below the refault rung. If other code closed it,
 * an invalid number: the old number may be that code's own file by now. */
int rung_userfault(void);
bool rung_has_userfault(void);

/* Whether the descriptor is still ours, and touching a missing page that is registered with it still
 * faults. Other code may have closed it: a process that becomes a daemon closes all its descriptors, and a
 * lost page would then read as zeros. Finding a page present counts only if this returns true afterwards. */
bool rung_holds(void);

/* The two ends of mending (userfault_reopen.c): the first opens a new descriptor. The second, once everything
 * is registered with it, places the canary that rung_holds checks. */
int rung_mend_begin(void);
int rung_mend_end(void);
/* Changes at both ends. A call that failed while this changed may be tried again. */
uint64_t rung_mends(void);

/* Where another process sees, in the memory of this one, whether a missing page faults: the rung and the number
 * of mends, side by side so that one read has both, and the canary, which can't be read as long as the
 * userfaultfd is open. NULL: there is no canary. */
typedef struct {
    _Atomic uint64_t mends;
    _Atomic int rung;
} rung_sign;

typedef struct {
    const rung_sign *sign;
    const char *canary;
} rung_signs;

void rung_find_signs(rung_signs *out);

/* No descriptor can be opened any more: moves to a lower rung. Call with the gate closed. */
void rung_fall(int error, const char *consequence);

/* MADV_FREE failed: falls to the eager rung if the kernel refuses it now. */
void rung_offer_failed(void);

/* After a fall to a lower rung: missing pages raise SIGBUS for ever, because another process has the old
 * descriptor. Filling a page then needs a new mapping. */
bool rung_still_faults(void);

/* In the child of a fork: opens a descriptor of its own. -errno: the child can't distinguish content from
 * zeros. */
int rung_reopen(void);

/* In the child of a fork if that failed. The child has offered nothing yet, and arrays find missing blocks
 * in another way (all_arrays.h), so the child goes on. */
void rung_fall_after_fork(int error);

extern const char *const rung_names[]; /* by number, "" for 0; for counters/names.c */

#endif
