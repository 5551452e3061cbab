/* Files of /proc that are read many times a second.
 *
 * They are opened once and stay open, because closing is what can harm: if another thread closes all
 * descriptors and opens a file of its own between the check and the close, the close hits that file
 * (os_kept_descriptors.h). A process with few descriptors left keeps none of them open. */
#ifndef VRANGE_OS_PROC_FILES_H
#define VRANGE_OS_PROC_FILES_H

#include <stddef.h>

typedef enum {
    OS_MEMINFO,
    OS_STATM,
    OS_PAGEMAP,
} os_proc_file;

/* Calls `use` with a descriptor of the file, and returns what that returns, or -errno. Where other code closed
 * the descriptor meanwhile, `use` is called again. Async-signal-safe if `use` is. */
int os_proc_use(os_proc_file file, int (*use)(int descriptor, void *context), void *context);

/* Reads it like os_read_text. */
int os_proc_text(os_proc_file file, char *text, size_t bytes);

/* In the child of a fork, where they would go on reporting the parent. */
void os_proc_after_fork(void);

#endif
