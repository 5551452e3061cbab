/* What the child of a fork inherits of volatile memory: the pages that are pinned, and nothing else.
 *
 * A page that parent and child share can't be taken from either: the kernel's advice reaches one page
 * table only. A child that merely exists would make all that its parent offers untakable, and fork
 * itself would copy an entry a page. So before fork every area of volatile memory is marked to be
 * empty in the child (MADV_WIPEONFORK), except where it is pinned; afterwards the marks go, in both.
 * A child that is made without fork handlers (a raw clone) therefore inherits everything, as ever.
 *
 * The areas themselves are there in the child: no other mapping can get between. */
#ifndef VRANGE_INHERIT_H
#define VRANGE_INHERIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *from, *to;
    uint32_t range; /* its index; 0 for blocks of an array */
} inherited_span;

/* Before fork, with the gate closed: begin, then name the areas and what is pinned in them, then mark. */
void inherit_begin(void);
void inherit_area(char *address, size_t bytes);
void inherit_keep(char *address, size_t bytes, uint32_t range);
void inherit_mark(void);

/* In the parent: takes the marks away. */
void inherit_unmark(void);

/* In the child: takes the marks away, and empties what came along though it was not kept. 0: the areas
 * hold what was kept and nothing else. 1: there was no memory for the lists, and the child has it all.
 * -errno: what came along can't be emptied. */
int inherit_settle(void);

/* In the child: what was kept, in order of address. */
const inherited_span *inherited_spans(size_t *count);

#endif
