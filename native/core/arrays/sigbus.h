/* The SIGBUS handler of arrays, which refills the block that was touched. */
#ifndef VRANGE_SIGBUS_H
#define VRANGE_SIGBUS_H

/* Inside the gate: installs our handler first if arrays exist, and removes it if there are none. */
int sigbus_look(void);

#endif
