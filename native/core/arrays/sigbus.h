#ifndef VRANGE_REFAULT_H
#define VRANGE_REFAULT_H

/* Inside the gate: installs our handler first if arrays exist, and removes it if there are none. */
int refault_look(void);

#endif
