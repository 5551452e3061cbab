/* switch_call for architectures without assembly. It uses ucontext, which makes two system calls for the
 * signal mask each time. Unwinders stop at the first frame of the new stack. */
#include "stacks/switch.h"

#if defined(VRANGE_SWITCH_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))

#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

typedef struct {
    ucontext_t here, there;
    void (*function)(void *);
    void *argument;
} crossing;

/* makecontext passes ints only, so the pointer comes in two halves. */
static void enter(unsigned high, unsigned low) {
    crossing *way = (crossing *)((uintptr_t)high << 16 << 16 | low);
    way->function(way->argument);
}

void switch_call(void *top, void (*function)(void *), void *argument) {
    /* makecontext asks for the whole stack but only counts down from its end. */
    const size_t claimed = 64 * 1024;
    crossing way = {.function = function, .argument = argument};
    if (getcontext(&way.there) < 0) abort(); /* can't fail on Linux */
    way.there.uc_stack.ss_sp = (char *)top - claimed;
    way.there.uc_stack.ss_size = claimed;
    way.there.uc_link = &way.here;
    uintptr_t address = (uintptr_t)&way;
    makecontext(&way.there, (void (*)(void))enter, 2, (unsigned)(address >> 16 >> 16),
                (unsigned)address);
    if (swapcontext(&way.here, &way.there) < 0) abort();
}

#else

/* ISO C requires a declaration in every file. */
typedef int switch_is_assembly;

#endif
