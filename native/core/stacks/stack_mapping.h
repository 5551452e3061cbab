/* The address space of a deep stack. */
#ifndef VRANGE_STACK_MAPPING_H
#define VRANGE_STACK_MAPPING_H

#include <stdbool.h>
#include <stddef.h>

#include "exported.h"
#include "stacks/stack_state.h"

/* How many bytes at a stack's end warn instead of ending the process; 0: none. Set before the first take. */
extern size_t stack_warning_most EXPORTED(stack_warning_most);

/* Rounds up to whole pages. */
size_t stack_whole_pages(size_t bytes);

/* Reserves the address space, and makes accessible what is open at first. -ENOMEM, or 0. */
int stack_map(stack *s, size_t bytes, bool automatic);
void stack_unmap(stack *s);

#endif
