/* Functions of the core that are not in vrange.h, but that the Python types link to.
 *
 * libvrange exports only names that begin with vrange_, so that it can be preloaded under any program.
 * EXPORTED(name) at a declaration gives the function such a name for the linker. C code goes on calling it
 * by its short name. */
#ifndef VRANGE_EXPORTED_H
#define VRANGE_EXPORTED_H

#define EXPORTED(name) __asm__("vrange_" #name) __attribute__((visibility("default")))

#endif
