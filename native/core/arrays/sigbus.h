#ifndef VRANGE_REFAULT_H
#define VRANGE_REFAULT_H

/* Inside the gate: puts our handler first where arrays exist, and takes it away where none do. */
int refault_look(void);

#endif
