/* What the core calls of the files that need Python, where there is none: nothing is to be done. */
#include "pymalloc.h"

void pymalloc_before_fork(void) {}
void pymalloc_after_fork(void) {}
