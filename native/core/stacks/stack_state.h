/* A deep stack, as the files of this room see it. */
#ifndef VRANGE_STACK_STATE_H
#define VRANGE_STACK_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vrange.h"

/*   mapping   low            warning_top       huge_top           kept       top
 *      | guard  | warning zone |  huge pages     |  ordinary pages  | 64 KiB    | guard |
 *      | never  | opened in    |                 |   grows down <-  | stay      | never |
 *                 parts when                                        resident
 *                 reached
 *
 * An automatic stack is one that was taken without a size. It is also closed below `open_low`, and opened
 * step by step as calls reach that address: stack_room.c.
 */
typedef struct stack {
    _Atomic uintptr_t owner; /* STACK_NONE, _POOLED, _CHANGING, or pthread_self() of its user */
    char *mapping;
    size_t mapped;
    char *low, *warning_top, *huge_top, *top; /* huge_top is warning_top if there are no huge pages */
    size_t bytes;
    bool automatic;
    bool is_own;     /* a thread's own stack (own_stack.c), and not one of the pool */
    char *first_low; /* lowest address that is open at first; warning_top unless automatic */

    /* The members below belong to the stack's owner, and to no thread while the stack is pooled. */
    char *offered_low;    /* from here up, offered pages may still be resident */
    bool offered_lately;  /* the next take checks whether they still are */
    uint32_t unlooked;    /* releases since the page tables were last checked */
    struct stack *outer;  /* the deep stack that this one was entered from */
    char *caller;         /* the stack pointer there */
    const char *name;     /* for messages; valid during the call */
    bool crowded;         /* entered only because the outer one was nearly used up */
    volatile int *counter;/* levels left to this thread, cut at the warning; NULL: none */
    int cut, cut_levels;  /* levels cut from `counter`, and from `levels` if that is another count */
    bool is_cut, was_cut; /* now; at any time since the call began */
    bool is_refused;      /* memory for a frame was refused in this call */
    char *cut_at;         /* where the frames ended at the last cut */
    unsigned cuts;        /* ever */
    void *thread;         /* the interpreter's thread state, for stack_set_bounds */
    char *open_low;       /* a touch below here faults */
    char *warning_low;    /* the warning zone is closed below here */
    _Atomic bool warned;  /* some of the warning zone is open */
    int64_t frame_bytes;  /* of Python's frames on the heap, in this call */
    size_t unlooked_bytes, look_after;
    uint64_t looked_ns;
    int64_t room;         /* at the last check */
    _Atomic int64_t needed; /* its part of what all deep calls need to end */
    char *base;           /* where the frames begin that count: the top, or inside an own stack */
    int levels_at_entry, counter_at_entry; /* `levels` and `counter` when the stack was entered */
    volatile int *levels;
    void *greenlets;      /* a weak set of those switched out of during the call; NULL: none */
    bool reusable;

    _Atomic uint64_t given; /* the pool's epoch when it was last returned */
    _Atomic uint64_t taken; /* how often */
    _Atomic size_t high_water;
    _Atomic int thread_id;
    _Atomic bool is_deep; /* of an own stack: it went below `first_low`, and was not trimmed as a whole since */
} stack;

enum {
    STACK_NONE,
    STACK_POOLED,
    STACK_CHANGING,
};

#endif
