#ifndef VRANGE_REFAULT_H
#define VRANGE_REFAULT_H

/* Inside the gate: puts our handler first if it is not, where arrays exist. */
int refault_arm_again(void);

#endif
