/* Reading texts that consist of lines `name number`, as the kernel's statistics files do. */
#ifndef VRANGE_STAT_FILE_H
#define VRANGE_STAT_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline bool line_number(const char *text, const char *name, uint64_t *number) {
    const size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, length) == 0 && line[length] == ' ') {
            *number = strtoull(line + length + 1, NULL, 10);
            return true;
        }
    }
    return false;
}

#endif
