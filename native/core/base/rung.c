/* The ladder: which mechanism this machine allows.
 *
 * A rung is chosen because a trial of it worked here, never because a version number promises it.
 * Containers block system calls that the kernel has (Docker's default seccomp profile blocks userfaultfd),
 * and some sandboxes accept advice and ignore it. The trial does the real thing in small: it offers two
 * pages, discards one, and must be able to distinguish the lost page from the one that stayed. */
#define _GNU_SOURCE
#include "base/rung.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"
#include "os/os_kept_descriptors.h"
#include "vrange.h"

#define REFUSAL_BYTES 160
#define NO_DESCRIPTOR INT_MAX /* an invalid number: every call on it fails with EBADF */

const char *const rung_names[] = {[0] = "",
                                  [VRANGE_RUNG_EAGER] = "eager",
                                  [VRANGE_RUNG_SENTINEL] = "sentinel",
                                  [VRANGE_RUNG_REFAULT] = "refault"};

static struct {
    pthread_once_t decided;
    rung_sign sign;
    os_held userfault;
    char *canary; /* a page that is registered and never filled: populating it has to fail */
    _Atomic bool still_faults;
    char refusals[VRANGE_RUNG_REFAULT + 1][REFUSAL_BYTES];
} ladder = {.decided = PTHREAD_ONCE_INIT, .userfault = {.number = -1}};

static bool refuse(int rung, const char *what, int error) {
    snprintf(ladder.refusals[rung], REFUSAL_BYTES, "%s: %s", what, strerror(-error));
    return false;
}

/* MADV_FREE works: advised pages keep their content until the kernel takes them. Whether this kernel takes
 * them can't be tried on old kernels (it needs MADV_PAGEOUT, 5.4), so only the advice is tried. */
static bool try_sentinel(void) {
    const size_t page = os_page_bytes();
    char *trial = os_reserve(page);
    if (!trial) return refuse(VRANGE_RUNG_SENTINEL, "no address space for a trial", -ENOMEM);
    int result = os_commit(trial, page);
    if (result == 0) {
        trial[0] = 1;
        result = os_lazyfree(trial, page);
    }
    os_unreserve(trial, page);
    return result == 0 || refuse(VRANGE_RUNG_SENTINEL, "madvise(MADV_FREE) is refused", result);
}

/* The canary is registered last: as long as populating it fails, everything else is registered too. */
static int place_canary(void) {
    const size_t page = os_page_bytes();
    if (!ladder.canary) {
        ladder.canary = os_reserve(page);
        if (!ladder.canary) return -ENOMEM;
        int result = os_commit(ladder.canary, page);
        if (result < 0) return result;
    }
    int result = os_userfault_register(atomic_load(&ladder.userfault.number), ladder.canary, page);
    if (result < 0) return result;
    /* Only now: until it was registered, rung_holds in another thread may have populated it. */
    result = os_discard(ladder.canary, page);
    if (result == -EINVAL) result = 0; /* locked memory: its content may stay, if populating it still fails */
    if (result < 0) return result;
    result = os_populate(ladder.canary, page);
    return result == -EFAULT ? 0 : result < 0 ? result
                                              : -ENOTSUP;
}

bool rung_holds(void) {
    if (ladder.sign.rung != VRANGE_RUNG_REFAULT) return true;
    return os_is_held(&ladder.userfault) && os_populate(ladder.canary, os_page_bytes()) == -EFAULT;
}

static bool try_refault(void) {
    const size_t page = os_page_bytes();
    os_held opened;
    int result = os_userfault_open(&opened);
    const int userfault = atomic_load(&opened.number);
    if (result < 0)
        return refuse(VRANGE_RUNG_REFAULT, "userfaultfd with UFFD_FEATURE_SIGBUS is refused", result);
    char *trial = os_reserve(2 * page);
    if (!trial) {
        os_let_go(&opened);
        return refuse(VRANGE_RUNG_REFAULT, "no address space for a trial", -ENOMEM);
    }
    const char *what = "a trial range can't be registered with userfaultfd";
    result = os_commit(trial, 2 * page);
    if (result == 0) result = os_userfault_register(userfault, trial, 2 * page);
    if (result == 0) {
        what = "UFFDIO_ZEROPAGE is refused";
        result = os_userfault_zero(userfault, trial, 2 * page);
    }
    if (result == 0) {
        what = "madvise(MADV_POPULATE_WRITE) does not work (Linux 5.14 has it)";
        result = os_populate(trial, 2 * page);
    }
    if (result == 0) {
        what = "MADV_POPULATE_WRITE does not report a lost page";
        trial[0] = 1;
        result = os_discard_unlocked(trial + page, page);
        if (result == -EINVAL)
            what = "this process locked its memory (mlockall), which can't be discarded then";
        if (result == 0) {
            int there = os_populate(trial, page);
            int lost = os_populate(trial + page, page);
            result = there == 0 && lost == -EFAULT && trial[0] == 1 ? 0 : -ENOTSUP;
        }
    }
    os_unreserve(trial, 2 * page);
    if (result < 0) {
        os_let_go(&opened);
        return refuse(VRANGE_RUNG_REFAULT, what, result);
    }
    os_hold(&opened, &ladder.userfault);
    result = place_canary();
    if (result == 0) return true;
    os_let_go(&ladder.userfault);
    return refuse(VRANGE_RUNG_REFAULT, "no page for a canary", result);
}

static void tell_lower(int asked, int rung) {
    char text[320];
    const int length = snprintf(text, sizeof text,
                                "vrange: VRANGE_RUNG=%s is not available here (%s); vrange continues on the "
                                "rung \"%s\"\n",
                                rung_names[asked], ladder.refusals[asked], rung_names[rung]);
    if (length > 0 && (size_t)length < sizeof text) os_complain(text, (size_t)length);
}

static void decide(void) {
    int highest = VRANGE_RUNG_REFAULT;
    const char *forced = getenv("VRANGE_RUNG");
    bool is_forced = forced && *forced;
    if (is_forced) {
        highest = 0;
        for (int rung = VRANGE_RUNG_EAGER; rung <= VRANGE_RUNG_REFAULT; rung++) {
            if (strcmp(forced, rung_names[rung]) == 0) highest = rung;
        }
    }
    for (int rung = VRANGE_RUNG_REFAULT; highest && rung > highest; rung--)
        snprintf(ladder.refusals[rung], REFUSAL_BYTES, "VRANGE_RUNG=%s asks for a lower rung", forced);

    int rung = highest;
    if (rung == VRANGE_RUNG_REFAULT && !try_refault()) rung--;
    if (rung == VRANGE_RUNG_SENTINEL && !try_sentinel()) rung--;
    ladder.sign.rung = rung;
    /* A program that runs in a stricter sandbox than it was set up for goes on, as without the variable. */
    if (is_forced && rung != highest) tell_lower(highest, rung);
}

int vrange_rung(void) {
    pthread_once(&ladder.decided, decide);
    return ladder.sign.rung;
}

const char *vrange_rung_refusal(int rung) {
    vrange_rung();
    if (rung < VRANGE_RUNG_EAGER || rung > VRANGE_RUNG_REFAULT) return NULL;
    return ladder.refusals[rung][0] ? ladder.refusals[rung] : NULL;
}

bool rung_has_userfault(void) { return os_is_held(&ladder.userfault); }

int rung_userfault(void) {
    if (ladder.sign.rung != VRANGE_RUNG_REFAULT) return -1;
    return os_is_held(&ladder.userfault) ? atomic_load(&ladder.userfault.number) : NO_DESCRIPTOR;
}

/* Whether missing pages still fault. The descriptor is gone, but a process that was made without our fork
 * handlers may have a copy, and the registration lives as long as that copy. */
static bool canary_faults(void) {
    const int discarded = os_discard(ladder.canary, os_page_bytes());
    /* Where madvise is refused, it is not known, and a new mapping is right in both cases. */
    return discarded < 0 || os_populate(ladder.canary, os_page_bytes()) < 0;
}

static void tell_fall(int rung, int error, const char *consequence) {
    char text[320];
    const int length =
        snprintf(text, sizeof text,
                 "vrange: the userfaultfd of the refault rung was closed, and opening another one is "
                 "refused now (%s); vrange continues on the rung \"%s\"%s\n",
                 strerror(-error), rung_names[rung],
                 consequence);
    if (length > 0) os_complain(text, (size_t)length);
}

void rung_fall(int error, const char *consequence) {
    os_let_go(&ladder.userfault); /* what is registered with it must not fault any more */
    const bool faults = canary_faults();
    atomic_store(&ladder.still_faults, faults);
    refuse(VRANGE_RUNG_REFAULT, "userfaultfd was closed, and is refused now", error);
    int rung = VRANGE_RUNG_SENTINEL;
    if (faults) {
        rung = VRANGE_RUNG_EAGER;
        refuse(rung + 1, "another process still has the closed userfaultfd", error);
    } else if (!try_sentinel()) {
        rung = VRANGE_RUNG_EAGER;
    }
    tell_fall(rung, error, consequence);
    atomic_store(&ladder.sign.rung, rung);
    atomic_fetch_add(&ladder.sign.mends, 1);
}

void rung_offer_failed(void) {
    int sentinel = VRANGE_RUNG_SENTINEL;
    if (atomic_load(&ladder.sign.rung) != sentinel || try_sentinel()) return;
    if (!atomic_compare_exchange_strong(&ladder.sign.rung, &sentinel, VRANGE_RUNG_EAGER)) return;
    static const char message[] = "vrange: madvise(MADV_FREE) is refused to this process now; vrange "
                                  "continues on the rung \"eager\"\n";
    os_complain(message, sizeof message - 1);
}

bool rung_still_faults(void) {
    return atomic_load_explicit(&ladder.still_faults, memory_order_relaxed);
}

void rung_fall_after_fork(int error) {
    os_let_go(&ladder.userfault); /* what was registered with it must not fault */
    refuse(VRANGE_RUNG_REFAULT, "userfaultfd is refused in this child of a fork", error);
    atomic_store(&ladder.sign.rung, try_sentinel() ? VRANGE_RUNG_SENTINEL : VRANGE_RUNG_EAGER);
    atomic_fetch_add(&ladder.sign.mends, 1);
}

int rung_reopen(void) {
    atomic_store(&ladder.still_faults, false); /* a child does not inherit registrations */
    if (ladder.sign.rung != VRANGE_RUNG_REFAULT) return 0;
    /* An ioctl on the inherited descriptor would write into the parent's memory. */
    const int result = rung_mend_begin();
    return result == 0 ? rung_mend_end() : result;
}

int rung_mend_begin(void) {
    atomic_fetch_add(&ladder.sign.mends, 1);
    os_let_go(&ladder.userfault);
    os_held opened;
    const int result = os_userfault_open(&opened);
    if (result < 0) return result;
    os_hold(&opened, &ladder.userfault);
    return 0;
}

int rung_mend_end(void) {
    const int result = place_canary();
    atomic_fetch_add(&ladder.sign.mends, 1);
    return result;
}

void rung_find_signs(rung_signs *out) {
    *out = (rung_signs){&ladder.sign, ladder.canary};
}

uint64_t rung_mends(void) { return atomic_load(&ladder.sign.mends); }
