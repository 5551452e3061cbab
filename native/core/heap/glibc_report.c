/* What glibc reports of its arenas. How much of it a trim would return is computed in Python
 * (runtime/vrange/heap/glibc.py), which reads the report as text. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vrange.h"

/* No option has this number. mallopt joins the small freed blocks of the main arena before it looks at the
 * number, as malloc_trim does, and then does nothing. */
#define NO_OPTION (-1000)

size_t vrange_glibc_report(char *text, size_t bytes) {
    int (*set_option)(int, int);
    int (*write_report)(int, FILE *);
    *(void **)&set_option = dlsym(RTLD_DEFAULT, "mallopt");
    *(void **)&write_report = dlsym(RTLD_DEFAULT, "malloc_info");
    if (!set_option || !write_report) return 0;
    char *report = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&report, &length);
    if (!stream) return 0;
    set_option(NO_OPTION, 0);
    const int result = write_report(0, stream);
    if (fclose(stream) != 0 || result != 0) length = 0;
    if (length && bytes) {
        const size_t some = length < bytes - 1 ? length : bytes - 1;
        memcpy(text, report, some);
        text[some] = 0;
    }
    free(report);
    return length;
}
