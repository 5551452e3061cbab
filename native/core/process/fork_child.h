/* The steps of a fork in the child, for one that was made without fork handlers (raw_child.c). */
#ifndef VRANGE_FORK_CHILD_H
#define VRANGE_FORK_CHILD_H

/* Lists what is pinned, as the handler before a fork does: the child has inherited everything. */
void fork_list_in_child(void);

/* Makes the memory the child's own. With the gate closed. */
void fork_settle_child(void);

#endif
