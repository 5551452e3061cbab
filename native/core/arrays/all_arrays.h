/* All arrays of the process, for the floors above that mend and fork. */
#ifndef VRANGE_ALL_ARRAYS_H
#define VRANGE_ALL_ARRAYS_H

/* For mending (userfault_reopen.c), with the gate closed. arrays_register registers all arrays with a new
 * descriptor. arrays_forget_content treats what is not pinned as lost. arrays_bar makes every touch of what
 * is not pinned fault, for when there is no descriptor any more. */
int arrays_register(int userfault);
void arrays_forget_content(void);
void arrays_bar(void);

/* Before fork: passes to inherit.h the arrays that are refilled when touched, and their pins. */
void arrays_before_fork(void);

/* In the child of a fork. Without a descriptor (-1) missing blocks can't be detected, so a touch of what
 * is not pinned ends the child instead of reading zeros. */
int arrays_register_again(int userfault);

/* For the reserve, inside the gate: discards every block that is not pinned. */
void arrays_return(void);

#endif
