"""Classic BPF as seccomp runs it, in Python: the other side of each comparison of filters."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Instruction = tuple[int, int, int, int]

WORD = 0xFFFFFFFF
LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
EQUAL, GREATER, AT_LEAST, ANY_BIT = 0x15, 0x25, 0x35, 0x45


def decode(program: bytes) -> list[Instruction]:
    """struct sock_filter[] as (code, jump if true, jump if false, operand)."""
    return list(struct.iter_unpack("=HBBI", program))


def seccomp_data(arch: int, number: int, args: Sequence[int] = ()) -> list[int]:
    """struct seccomp_data as its 16 words; the instruction pointer is 0."""
    words = [number & WORD, arch & WORD, 0, 0]
    for index in range(6):
        value = args[index] if index < len(args) else 0
        words += [value & WORD, value >> 32 & WORD]
    return words


def run(program: Sequence[Instruction], words: Sequence[int]) -> int:
    """What the filter returns. AssertionError for an instruction that the kernel would not take."""
    at = accumulator = 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        if code == LOAD:
            assert operand % 4 == 0
            accumulator = words[operand // 4]
        elif code == EQUAL:
            at += yes if accumulator == operand else no
        elif code == AT_LEAST:
            at += yes if accumulator >= operand else no
        elif code == GREATER:
            at += yes if accumulator > operand else no
        elif code == RETURN:
            return operand
        elif code == JUMP:
            at += operand
        elif code == AND:
            accumulator &= operand
        elif code == ANY_BIT:
            at += yes if accumulator & operand else no
        else:
            raise AssertionError(f"instruction {code:#x}")
