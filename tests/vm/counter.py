# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of a few instructions that counts and says so, as the firmware of a PC: no BIOS, no kernel.

It counts the ticks of its timer (18.2 a second) in its memory, and at each eighth writes the number, eight
hexadecimal digits and a newline, to its first serial port. The n-th tick's number goes also into page
n modulo 128, after a look whether what was put there 128 ticks ago still stands: where it does not, it says
X and counts no more. So what it says tells of each tick, and of memory that was lost on a migration.

It wants a CPU without a local APIC (`-cpu …,-apic`): the timer's interrupt then comes straight from the 8259.
"""

from __future__ import annotations

EVERY = 8  # ticks
_SIZE = 0x10000  # bytes, the last of which are the reset vector's
_RESET = 0xFFF0
_PROGRAM = bytes.fromhex(
    # Real mode, at F000:0000. Segments 0, a stack, the interrupt vector 8.
    "fa 31c0 8ed8 8ed0 bc0070"  # cli; xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7000
    "c70620009400 c706220000f0"  # mov word [0x20],tick; mov word [0x22],0xf000
    # The 8259: interrupt 0 as vector 8, all others masked.
    "b011e620 b008e621 b004e621 b001e621 b0fee621"
    # The 8254: channel 0 divides by 65536.
    "b034e643 30c0 e640 e640"
    "baf803"  # mov dx,0x3f8
    # again: wait for a tick, count it at 0:0500.
    "fb f4 fa"  # sti; hlt; cli
    "66a10005 6640 66a30005"  # mov eax,[0x500]; inc eax; mov [0x500],eax
    # es: the segment of page eax modulo 128, from 0x10000 on; ebx: what stands there, 0 in the first round.
    "89c1 83e17f c1e108 81c10010 8ec1"  # mov cx,ax; and cx,127; shl cx,8; add cx,0x1000; mov es,cx
    "6689c3 6681eb80000000 7303 6631db"  # mov ebx,eax; sub ebx,128; jnc known; xor ebx,ebx
    "2666391e0000 7521 2666a30000"  # known: cmp es:[0],ebx; jne broken; mov es:[0],eax
    "a807 75c5"  # test al,7; jnz again
    # Eight digits, the highest first.
    "b90800"  # mov cx,8
    "66c1c004 50"  # digit: rol eax,4; push ax
    "240f 3c0a 1c69 2f ee"  # and al,15; cmp al,10; sbb al,0x69; das; out dx,al
    "58 e2f0"  # pop ax; loop digit
    "b00a ee ebad"  # mov al,10; out dx,al; jmp again
    # broken: X, a newline, and no more.
    "b058 ee b00a ee fa f4 ebfc"  # mov al,'X'; out dx,al; mov al,10; out dx,al; stuck: cli; hlt; jmp stuck
    # tick: the 8259 may send the next one.
    "50 b020 e620 58 cf"  # push ax; mov al,0x20; out 0x20,al; pop ax; iret
)


def firmware() -> bytes:
    """Return the image for QEMU's -bios; it is seen below 1 MiB, and below 4 GiB, where the CPU starts."""
    image = bytearray(_SIZE)
    image[: len(_PROGRAM)] = _PROGRAM
    image[_RESET : _RESET + 5] = bytes.fromhex("ea000000f0")  # jmp far F000:0000
    return bytes(image)


def history(last: int) -> str:
    """Return all that it has said when it has said `last`, a comma for each newline."""
    return "".join(f"{number:08X}," for number in range(EVERY, last + 1, EVERY))
