/* The ladder: which mechanism this machine allows.
 *
 * A rung is taken because it was seen to work here, never because a version number promises it:
 * containers block system calls that the kernel has (Docker's default seccomp profile userfaultfd),
 * and sandboxes accept advice that they ignore. The trial is the real thing in small: two pages are
 * offered, one is taken, and the loss must be told apart from the page that stayed. */
#define _GNU_SOURCE
#include "rung.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "os.h"
#include "os_held.h"
#include "vrange.h"

#define REFUSAL_BYTES 160
#define NO_DESCRIPTOR INT_MAX /* what is asked of it fails by EBADF */

static struct {
    pthread_once_t decided;
    int rung;
    os_held userfault;
    char *canary; /* a page that is registered and never filled: asking for it has to fail */
    char refusals[VRANGE_RUNG_REFAULT + 1][REFUSAL_BYTES];
} ladder = {.decided = PTHREAD_ONCE_INIT, .userfault = {.number = -1}};

static bool refuse(int rung, const char *what, int error) {
    snprintf(ladder.refusals[rung], REFUSAL_BYTES, "%s: %s", what, strerror(-error));
    return false;
}

/* MADV_FREE works: advised pages keep their content until they are taken. Whether this kernel takes
 * them (MADV_PAGEOUT, 5.4) can't be asked for on older ones, so only the advice is tried. */
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

static int place_canary(void) {
    const size_t page = os_page_bytes();
    if (!ladder.canary) {
        ladder.canary = os_reserve(page);
        if (!ladder.canary) return -ENOMEM;
        int result = os_commit(ladder.canary, page);
        if (result < 0) return result;
    }
    os_discard(ladder.canary, page);
    return os_userfault_register(ladder.userfault.number, ladder.canary, page);
}

bool rung_holds(void) {
    if (ladder.rung != VRANGE_RUNG_REFAULT) return true;
    return os_is_held(&ladder.userfault) && os_populate(ladder.canary, os_page_bytes()) == -EFAULT;
}

static bool try_refault(void) {
    const size_t page = os_page_bytes();
    int userfault = -1;
    int result = os_userfault_open(&userfault);
    if (result < 0)
        return refuse(VRANGE_RUNG_REFAULT, "userfaultfd with UFFD_FEATURE_SIGBUS is refused", result);
    char *trial = os_reserve(2 * page);
    if (!trial) {
        os_close(userfault);
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
        what = "a lost page is not told by MADV_POPULATE_WRITE";
        trial[0] = 1;
        result = os_discard(trial + page, page);
        if (result == 0) {
            int there = os_populate(trial, page);
            int lost = os_populate(trial + page, page);
            result = there == 0 && lost == -EFAULT && trial[0] == 1 ? 0 : -ENOTSUP;
        }
    }
    os_unreserve(trial, 2 * page);
    if (result < 0) {
        os_close(userfault);
        return refuse(VRANGE_RUNG_REFAULT, what, result);
    }
    os_hold(userfault, &ladder.userfault);
    result = place_canary();
    if (result == 0) return true;
    os_let_go(&ladder.userfault);
    return refuse(VRANGE_RUNG_REFAULT, "no page for a canary", result);
}

static void decide(void) {
    static const char *const names[] = {[VRANGE_RUNG_EAGER] = "eager",
                                        [VRANGE_RUNG_SENTINEL] = "sentinel",
                                        [VRANGE_RUNG_REFAULT] = "refault"};
    int highest = VRANGE_RUNG_REFAULT;
    const char *forced = getenv("VRANGE_RUNG");
    bool is_forced = forced && *forced;
    if (is_forced) {
        highest = 0;
        for (int rung = VRANGE_RUNG_EAGER; rung <= VRANGE_RUNG_REFAULT; rung++) {
            if (strcmp(forced, names[rung]) == 0) highest = rung;
        }
    }
    for (int rung = VRANGE_RUNG_REFAULT; highest && rung > highest; rung--)
        snprintf(ladder.refusals[rung], REFUSAL_BYTES, "VRANGE_RUNG=%s asks for a lower rung", forced);

    int rung = highest;
    if (rung == VRANGE_RUNG_REFAULT && !try_refault()) rung--;
    if (rung == VRANGE_RUNG_SENTINEL && !try_sentinel()) rung--;
    /* A forced rung that is not to be had is an error, not a silent other one: tests rely on it. */
    ladder.rung = is_forced && rung != highest ? 0 : rung;
}

int vrange_rung(void) {
    pthread_once(&ladder.decided, decide);
    return ladder.rung;
}

const char *vrange_rung_refusal(int rung) {
    vrange_rung();
    if (rung < VRANGE_RUNG_EAGER || rung > VRANGE_RUNG_REFAULT) return NULL;
    return ladder.refusals[rung][0] ? ladder.refusals[rung] : NULL;
}

int rung_userfault(void) {
    if (ladder.rung != VRANGE_RUNG_REFAULT) return -1;
    return os_is_held(&ladder.userfault) ? atomic_load(&ladder.userfault.number) : NO_DESCRIPTOR;
}

void rung_fall(int error) {
    if (arrays_exist()) {
        static const char message[] =
            "vrange: userfaultfd was closed by somebody and can't be opened again; what volatile "
            "arrays lose would read as zeros, so the process ends\n";
        os_complain(message, sizeof message - 1);
        abort();
    }
    ladder.rung = VRANGE_RUNG_EAGER;
    refuse(VRANGE_RUNG_REFAULT, "userfaultfd was closed, and is refused now", error);
    refuse(VRANGE_RUNG_SENTINEL, "passed over when the refault rung was lost at run time", error);
}

void rung_fall_after_fork(int error) {
    os_let_go(&ladder.userfault); /* what was registered with it must not fault */
    ladder.rung = VRANGE_RUNG_EAGER;
    refuse(VRANGE_RUNG_REFAULT, "userfaultfd is refused in this child of a fork", error);
    refuse(VRANGE_RUNG_SENTINEL, "passed over when the refault rung was lost at a fork", error);
}

int rung_reopen(void) {
    if (ladder.rung != VRANGE_RUNG_REFAULT) return 0;
    /* An ioctl on the inherited descriptor would write into the parent's memory. */
    os_let_go(&ladder.userfault);
    return rung_open_again();
}

int rung_open_again(void) {
    if (ladder.rung != VRANGE_RUNG_REFAULT) return 0;
    os_let_go(&ladder.userfault);
    int userfault = -1;
    int result = os_userfault_open(&userfault);
    if (result < 0) return result;
    os_hold(userfault, &ladder.userfault);
    return place_canary();
}
