/* Deep stacks, as the files of the core see them. */
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
    void *thread;         /* the interpreter's thread state, for stack_set_bounds */
    char *open_low;       /* a touch below here faults */
    char *warning_low;    /* the warning zone is closed below here */
    _Atomic bool warned;  /* some of the warning zone is open */
    int64_t frame_bytes;  /* of Python's frames on the heap, in this call */
    size_t unlooked_bytes, look_after;
    uint64_t looked_ns;
    int64_t room;         /* at the last check */
    int64_t needed;       /* its part of what all deep calls need to end */
    int levels_at_entry;  /* for the message: `levels` when the stack was entered */
    volatile int *levels;
    void *greenlets;      /* a set of those switched out of during the call; NULL: none */
    bool reusable;

    _Atomic uint64_t given; /* sequence number of its last return to the pool */
    _Atomic size_t high_water;
    _Atomic int thread_id;
} stack;

enum { STACK_NONE, STACK_POOLED, STACK_CHANGING };

#define STACK_BYTES_LEAST (256u * 1024)
/* Address space of an automatic stack; less if RLIMIT_AS is small. */
#define STACK_AUTOMATIC_BYTES ((size_t)4 << 30)

/* How many bytes at a stack's end warn instead of ending the process; 0: none. Set before the first take. */
extern size_t stack_warning_most EXPORTED(stack_warning_most);

/* The deep stack that the calling thread runs on; NULL if it runs on its own stack. */
stack *stack_current(void) EXPORTED(stack_current);
void stack_set_current(stack *now) EXPORTED(stack_set_current);

/* Sets the bounds of the C stack in the interpreter; NULL before 3.14. Async-signal-safe. */
extern int (*stack_set_bounds)(void *thread, void *low, size_t bytes)
    EXPORTED(stack_set_bounds);

/* Takes a pooled or new stack of exactly `bytes` (rounded up to pages). -ENOMEM if there is none. The
 * thread must have been armed (sigsegv.h). */
int stack_take(size_t bytes, bool automatic, stack **out) EXPORTED(stack_take);

/* How far down the calls on this stack went, by the page tables; 0 if no further than the kept part. */
size_t stack_used(stack *s) EXPORTED(stack_used);

/* Frees `used` bytes of the stack as `release` says, and returns the stack to the pool. */
void stack_give(stack *s, size_t used, int release) EXPORTED(stack_give);

/* Takes the stack out of use for ever, because frames still lie on it. Its memory stays readable. */
void stack_retire(stack *s) EXPORTED(stack_retire);

/* The stack that contains `address`, guards included; NULL if none. Async-signal-safe. */
stack *stack_around(const void *address);

/* Frees the part below the frames that end at `sp`; returns the bytes freed. Async-signal-safe. */
size_t stack_trim_below(char *low, char *sp, int release);
void stack_count_returned(size_t bytes, bool trim);

/* The thread has ended, or this is a child in which it never existed. */
void stack_abandon_all(stack *innermost);
void stacks_after_fork(void);

#endif
