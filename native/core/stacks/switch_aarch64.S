/* vrange_switch_call for aarch64 (AAPCS64): x0 top, x1 function, x2 argument.
 *
 * x29 holds the old stack pointer, and the unwind information refers to it (the CFA). The hints are BTI
 * and pointer authentication; processors without these ignore them. */
#if defined(__aarch64__) && !defined(VRANGE_SWITCH_UCONTEXT)

    .text
    .globl vrange_switch_call
    .type vrange_switch_call, %function
vrange_switch_call:
    .cfi_startproc
    hint #25 /* paciasp, which is also a landing pad for BTI */
    .cfi_negate_ra_state
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov x29, sp
    .cfi_def_cfa x29, 16
    mov sp, x0
    mov x0, x2
    blr x1
    mov sp, x29
    .cfi_def_cfa sp, 16
    ldp x29, x30, [sp], #16
    .cfi_restore x29
    .cfi_restore x30
    .cfi_def_cfa_offset 0
    hint #29 /* autiasp */
    .cfi_negate_ra_state
    ret
    .cfi_endproc
    .size vrange_switch_call, .-vrange_switch_call

#endif

/* Without this section the linker would make every stack of the process executable. */
    .section .note.GNU-stack, "", %progbits
