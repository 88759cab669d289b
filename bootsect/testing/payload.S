# SPDX-License-Identifier: BSD-3-Clause
# What boot tests boot: a kernel to a loader (Linux's boot protocol 2.03), and to nobody else. It sums its own bytes, which
# the test has made to be zero, prints its command line and the first bytes of its initrd on the serial port, and resets
# the machine. Loaders start it in real mode (SYSLINUX and kin) or in protected mode (GRUB).
#
#     as --32 payload.S, then ld -m elf_i386 --oformat binary -Ttext=0
        .set base, 0x100000     # where loaders put what is behind the setup code
        .set cmd_line, 0x228
        .set ramdisk, 0x218

        .text
        .code16
        .org 0x1F1
        .byte 1                 # sectors of setup code
        .word 0
        .long (end - protected) / 16
        .word 0, 0xFFFF, 0, 0xAA55
        jmp setup
        .ascii "HdrS"
        .word 0x0203            # version
        .long 0
        .word 0, 0
        .byte 0
        .byte 1                 # loaded high
        .word 0
        .long base
        .long 0, 0              # initrd: where, how many bytes
        .long 0
        .word 0, 0
        .long 0                 # command line: where
        .long 0x37FFFFFF        # the highest byte that an initrd may have
setup:
        cli
        inb $0x92, %al          # A20
        orb $2, %al
        outb %al, $0x92
        xorl %eax, %eax
        movw %ds, %ax
        shll $4, %eax
        movl %eax, %esi         # the parameters: what begins at byte 0
        addl $descriptors, %eax
        movl %eax, table + 2
        lgdtl table
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $0x10, $base
        .balign 8
descriptors:
        .quad 0, 0
        .quad 0x00CF9A000000FFFF
        .quad 0x00CF92000000FFFF
table:
        .word . - descriptors - 1
        .long 0

        .code32
        .org 0x400
protected:
        movl $0x18, %eax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $base + end - protected + 4096, %esp
        cld
        movl %esi, %ebp
        movl $base, %esi
        movl $(end - protected) / 4, %ecx
        xorl %ebx, %ebx
sum:
        lodsl
        addl %eax, %ebx
        loop sum
        movl $base + booted - protected, %esi
        testl %ebx, %ebx
        jz loaded
        movl $base + damaged - protected, %esi
loaded:
        movl $100, %ecx
        call print
        movl cmd_line(%ebp), %esi
        movl $1000, %ecx
        call print
        movl $base + with - protected, %esi
        movl $100, %ecx
        call print
        movl ramdisk(%ebp), %esi
        movl ramdisk + 4(%ebp), %ecx
        call print
        movl $base + finished - protected, %esi
        movl $100, %ecx
        call print
        movb $0xFE, %al         # by the keyboard's controller
        outb %al, $0x64
halt:
        hlt
        jmp halt

print:                          # at most ecx bytes from esi on, up to a 0
        jecxz printed
        lodsb
        testb %al, %al
        jz printed
        movb %al, %bl
        movw $0x3FD, %dx
busy:
        inb %dx, %al
        testb $0x20, %al
        jz busy
        movb %bl, %al
        movw $0x3F8, %dx
        outb %al, %dx
        decl %ecx
        jmp print
printed:
        ret

booted: .asciz "\r\nmkvirtfs booted: "
damaged: .asciz "\r\nthe kernel is damaged: "
with:   .asciz " with "
finished: .asciz "\r\nend\r\n"

        .balign 4
        .set state, 1           # so much that loaders read it in pieces
        .rept 50000
        .long state
        .set state, (state * 1103515245 + 12345) & 0x7FFFFFFF
        .endr
        .balign 16
        .long 0, 0, 0
balance: .long 0                # makes the sum zero
end:
