/* What the child of a fork inherits of volatile memory: the pinned pages, and nothing else.
 *
 * The kernel can't reclaim a page that parent and child share: its advice reaches one page table only. So
 * a child that merely exists would keep the kernel from reclaiming anything that its parent offers, and
 * fork itself would copy a page table entry for each page. Therefore every area of volatile memory is
 * marked before fork to be empty in the child (MADV_WIPEONFORK), except where it is pinned. After fork
 * both parent and child remove the marks. A child that is made without fork handlers (a raw clone)
 * inherits everything, and empties what is not pinned when it first uses vrange (process/raw_child.c).
 *
 * The areas themselves stay mapped in the child, so that no other mapping can take their place. */
#ifndef VRANGE_INHERIT_H
#define VRANGE_INHERIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *from, *to;
    uint32_t range; /* its index; 0 for blocks of an array */
} inherited_span;

/* Before fork, with the gate closed: call inherit_begin, name the areas and what is pinned in them, then
 * call inherit_mark. */
void inherit_begin(void);
void inherit_area(char *address, size_t bytes);
void inherit_keep(char *address, size_t bytes, uint32_t range);
void inherit_mark(void);

/* Instead of inherit_mark, in a child that was made without fork handlers and has inherited everything. */
void inherit_mark_nothing(void);

/* In the parent: removes the marks. */
void inherit_unmark(void);

/* In the child: removes the marks, and empties what the child inherited although it was not to be kept.
 * Returns 0 if the areas hold the kept content and nothing else; 1 if there was no memory for the lists,
 * and the child has inherited everything; -errno if the surplus can't be emptied, or if kept content may be
 * missing. */
int inherit_settle(void);

/* In the child: the kept spans, in order of address. */
const inherited_span *inherited_spans(size_t *count);

/* For the floors above, once at load time: sets what is called in a child after it has settled. By then
 * every range that was not kept is purged. */
void inherit_register(void (*handler)(void));
void inherit_tell_settled(void);

#endif
