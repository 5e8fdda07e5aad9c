"""Reads protobuf messages by their field numbers, with nothing generated and nothing executed.

https://protobuf.dev/programming-guides/encoding/
"""

import struct
from collections.abc import Iterator


def fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of each field: whole numbers, float32 and float64, or bytes. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than its message")
            yield number, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size, kind = (8, "<d") if wire == 1 else (4, "<f")
            if at + size > len(data):
                raise ValueError("a number is cut off")
            yield number, struct.unpack_from(kind, data, at)[0]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends. Raises ValueError."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")
