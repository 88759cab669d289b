# SPDX-License-Identifier: BSD-3-Clause
# A floppy has no room for a kernel: SYSLINUX loads this instead, as a boot sector at 0:7C00. It prints
# a line on the serial port and powers QEMU's isa-debug-exit off.
.code16
.globl _start
_start:
  xor %ax, %ax
  mov %ax, %ds
  mov $message, %si
  cld
next:
  lodsb
  test %al, %al
  jz done
  mov %al, %bl
wait:
  mov $0x3fd, %dx
  in %dx, %al
  test $0x20, %al
  jz wait
  mov %bl, %al
  mov $0x3f8, %dx
  out %al, %dx
  jmp next
done:
  mov $0xf4, %dx
  mov $0x10, %al
  out %al, %dx
  hlt
  jmp done
message:
  .asciz "BOOTED: payload\r\n"
