/* From some moment on, glibc serves the program. */
#ifndef VRANGE_MALLOC_STEP_ASIDE_H
#define VRANGE_MALLOC_STEP_ASIDE_H

/* New blocks are glibc's from now on, vrange's thread ends, and what is freed of the heap's blocks stays in the
 * process. Does nothing if other parts of vrange are used, too, or in the child of vfork. */
void malloc_step_aside(void);

#endif
