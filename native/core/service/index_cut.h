/* An index whose file other code cuts short while it is mapped. */
#ifndef VRANGE_INDEX_CUT_H
#define VRANGE_INDEX_CUT_H

#include "service/index_file.h"

/* From now on a touch behind the end of the index's file does not end the process: the index becomes private
 * memory of zeros, in which nothing is found, and this process is no member any more. */
void index_cut_watch(vrange_shared *s);

#endif
