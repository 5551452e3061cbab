/* All arrays of the process, for those above that mend and fork. */
#ifndef VRANGE_ARRAY_H
#define VRANGE_ARRAY_H

/* Mending (mend.c), with the gate closed: all are registered with a new descriptor; what is not pinned
 * counts as lost; or, where there is no descriptor any more, what is not pinned can't be touched. */
int arrays_register(int userfault);
void arrays_forget_content(void);
void arrays_bar(void);

/* Before fork: names to inherit.h the arrays that grow back where they are touched, and their pins. */
void arrays_before_fork(void);

/* In the child of a fork. Without a descriptor (-1) no array can be told what it lacks, so that a touch
 * of what is not pinned ends the child, instead of reading zeros. */
int arrays_register_again(int userfault);

#endif
