/* Deep stacks as the files of the core know them. */
#ifndef VRANGE_STACK_H
#define VRANGE_STACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "os/exported.h"
#include "vrange.h"

/*   mapping   low            warning_top       huge_top           kept       top
 *      | guard  | warning zone |  huge pages     |  ordinary pages  | 64 KiB    | guard |
 *      | never  | opened in    |                 |   grows down <-  | stay      | never |
 *                 parts when                                        resident
 *                 reached
 *
 * An automatic stack, one whose size nobody said, is also closed from `open_low` down, and opened step by
 * step as calls reach there: stack_room.c.
 */
typedef struct stack {
    _Atomic uintptr_t owner; /* STACK_NONE, _POOLED, _CHANGING, or pthread_self() of its user */
    char *mapping;
    size_t mapped;
    char *low, *warning_top, *huge_top, *top; /* huge_top is warning_top where there are none */
    size_t bytes;
    bool automatic;
    char *first_low; /* an automatic one is open so far at first; warning_top in others */

    /* Its owner's, and nobody's while it is pooled. */
    char *offered_low;    /* what was offered and may still be resident begins here */
    bool offered_lately;  /* the next take tells whether that is still there */
    uint32_t unlooked;    /* releases since the page tables were last asked */
    struct stack *outer;  /* the deep stack this one was entered from */
    char *caller;         /* the stack pointer there */
    const char *name;     /* for messages; alive as long as the call */
    bool crowded;         /* entered only because the outer one was nearly used up */
    volatile int *counter;/* recursion left to this thread, to be cut at the warning; NULL: none */
    int cut, cut_levels;  /* what was taken from it and from `levels`, where that is another count */
    bool is_cut, was_cut; /* now; since the call began */
    void *thread;         /* the interpreter's, for stack_set_bounds */
    char *open_low;       /* a touch below here faults */
    char *warning_low;    /* the warning zone is closed below here */
    _Atomic bool warned;  /* some of the warning zone is open */
    int64_t frame_bytes;  /* of Python's frames on the heap, in this call */
    size_t unlooked_bytes, look_after;
    uint64_t looked_ns;
    int64_t room;         /* at the last look */
    int64_t needed;       /* its part of what all deep calls need to end */
    int levels_at_entry;  /* for the message: what `levels` said when the stack was entered */
    volatile int *levels;
    void *greenlets;      /* a set of those switched out of during the call; NULL: none */
    bool reusable;

    _Atomic uint64_t given; /* its turn among all that were given back */
    _Atomic size_t high_water;
    _Atomic int thread_id;
} stack;

enum { STACK_NONE, STACK_POOLED, STACK_CHANGING };

#define STACK_BYTES_LEAST (256u * 1024)
/* Address space of an automatic stack; less where RLIMIT_AS is small. */
#define STACK_AUTOMATIC_BYTES ((size_t)4 << 30)

/* How much of a stack's end warns instead of ending the process; 0: none. Set before the first take. */
extern size_t stack_warning_most EXPORTED(stack_warning_most);

/* The deep stack the calling thread runs on; NULL: its own. */
stack *stack_current(void) EXPORTED(stack_current);
void stack_set_current(stack *now) EXPORTED(stack_set_current);

/* Tells the interpreter the bounds of the C stack; NULL before 3.14. Async-signal-safe. */
extern int (*stack_set_bounds)(void *thread, void *low, size_t bytes)
    EXPORTED(stack_set_bounds);

/* A pooled or new stack of exactly so many bytes (rounded up to pages). -ENOMEM: not to be had.
 * The thread must have been armed (sigsegv.h). */
int stack_take(size_t bytes, bool automatic, stack **out) EXPORTED(stack_take);

/* How far down the calls on it went, by the page tables; 0: no further than what is kept. */
size_t stack_used(stack *s) EXPORTED(stack_used);

/* Gives back `used` bytes of it by policy, and the stack to the pool. */
void stack_give(stack *s, size_t used, int release) EXPORTED(stack_give);

/* Never to be used again, as somebody's frames still lie on it; its memory stays readable. */
void stack_retire(stack *s) EXPORTED(stack_retire);

/* The stack that has the address between its guards' far ends; NULL: none. Async-signal-safe. */
stack *stack_around(const void *address);

/* The part of a stack whose frames end at `sp`: returns the bytes given back. Async-signal-safe. */
size_t stack_trim_below(char *low, char *sp, int release);
void stack_count_returned(size_t bytes, bool trim);

/* The thread is gone, or this is a child where it never was. */
void stack_abandon_all(stack *innermost);
void stacks_after_fork(void);

#endif
