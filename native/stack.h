/* Deep stacks as the files of the core know them. */
#ifndef VRANGE_STACK_H
#define VRANGE_STACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vrange.h"

/*   mapping   low            warning_top       huge_top           kept       top
 *      | guard  | warning zone |  huge pages     |  ordinary pages  | 64 KiB    | guard |
 *      | never  | opened once, |                 |   grows down <-  | stay      | never |
 *                 when reached                                      resident
 */
typedef struct stack {
    _Atomic uintptr_t owner; /* STACK_NONE, _POOLED, _CHANGING, or pthread_self() of its user */
    char *mapping;
    size_t mapped;
    char *low, *warning_top, *huge_top, *top; /* huge_top is warning_top where there are none */
    size_t bytes;

    /* Its owner's, and nobody's while it is pooled. */
    char *offered_low;    /* what was offered and may still be resident begins here */
    bool offered_lately;  /* the next take tells whether that is still there */
    uint32_t unlooked;    /* releases since the page tables were last asked */
    struct stack *outer;  /* the deep stack this one was entered from */
    char *caller;         /* the stack pointer there */
    const char *name;     /* for messages; alive as long as the call */
    bool crowded;         /* entered only because the outer one was nearly used up */
    volatile int *counter;/* recursion left to this thread, to be cut at the warning; NULL: none */
    int cut;              /* what the warning took from it */
    _Atomic bool warned;
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

/* How much of a stack's end warns instead of ending the process; 0: none. Set before the first take. */
extern size_t stack_warning_most;

/* The deep stack the calling thread runs on; NULL: its own. */
stack *stack_current(void);
void stack_set_current(stack *now);

/* A pooled or new stack of exactly so many bytes (rounded up to pages). -ENOMEM: not to be had.
 * The thread must have been armed (overflow.h). */
int stack_take(size_t bytes, stack **out);

/* How far down the calls on it went, by the page tables; 0: no further than what is kept. */
size_t stack_used(stack *s);

/* Gives back `used` bytes of it by policy, and the stack to the pool. */
void stack_give(stack *s, size_t used, int release);

/* Never to be used again, as somebody's frames still lie on it; its memory stays readable. */
void stack_retire(stack *s);

/* The stack that has the address between its guards' far ends; NULL: none. Async-signal-safe. */
stack *stack_around(const void *address);

/* The part of a stack whose frames end at `sp`: returns the bytes given back. Async-signal-safe. */
size_t stack_trim_below(char *low, char *sp, int release);
void stack_count_returned(size_t bytes, bool trim);

/* The thread is gone, or this is a child where it never was. */
void stack_abandon_all(stack *innermost);
void stacks_after_fork(void);

#endif
