/* vrange_switch_call for x86_64 (System V ABI): rdi top, rsi function, rdx argument.
 *
 * rbp holds the old stack pointer, and the unwind information refers to it (the CFA). So an unwinder steps
 * from the new stack to the old one as from any call to its caller. Calls and returns stay paired: a
 * shadow stack (CET) sees nothing unusual. */
#if defined(__x86_64__) && !defined(VRANGE_SWITCH_UCONTEXT)

#ifdef __CET__
#include <cet.h>
#else
#define _CET_ENDBR
#endif

    .text
    .globl vrange_switch_call
    .type vrange_switch_call, @function
vrange_switch_call:
    .cfi_startproc
    _CET_ENDBR
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    movq %rdi, %rsp
    movq %rdx, %rdi
    callq *%rsi
    movq %rbp, %rsp
    popq %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size vrange_switch_call, .-vrange_switch_call

#endif

/* Without this section the linker would make every stack of the process executable. */
    .section .note.GNU-stack, "", %progbits
