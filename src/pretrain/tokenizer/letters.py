"""GPT-2's alphabet (Radford et al. 2019): a printable letter for every byte, in which byte-level vocabularies write."""


def _byte_letters() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


BYTES = _byte_letters()  # byte by letter
LETTERS = {byte: letter for letter, byte in BYTES.items()}  # letter by byte


def bytes_of(piece: str) -> bytes:
    """The bytes that a piece of a byte-level vocabulary writes. Raises KeyError where it is none."""
    return bytes(BYTES[letter] for letter in piece)


def letters_of(data: bytes) -> str:
    """How a byte-level vocabulary writes these bytes."""
    return "".join(LETTERS[byte] for byte in data)
