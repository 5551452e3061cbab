/* The system calls about the stack that the kernel made for the main thread. */
#ifndef VRANGE_OS_MAIN_STACK_H
#define VRANGE_OS_MAIN_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exported.h"

typedef struct {
    char *low, *top;  /* what the kernel has mapped until now */
    char *end_below;  /* where the next mapping below it ends */
    bool is_executable;
} os_main_stack_place;

/* Reads the mapping "[stack]". Not async-signal-safe. */
int os_main_stack(os_main_stack_place *out);

/* RLIMIT_STACK; UINT64_MAX if unlimited. */
uint64_t os_stack_limit(void);

/* Makes the kernel map the main thread's stack down to the page of `to`, which is below what is mapped; -errno
 * if it refuses. */
int os_grow_main_stack(char *to);

/* Sets how much stack threads get that are started without a size. pthread_create read RLIMIT_STACK for that
 * when the process began. */
int os_default_thread_stack(size_t bytes) EXPORTED(os_default_thread_stack);

#endif
