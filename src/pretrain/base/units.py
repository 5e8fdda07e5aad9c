"""Quantities as people write them: "15T", "128Ki tokens", "2 h", "80GiB" and back."""

import re

from pretrain.base.errors import UserError

DECIMAL = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12, "P": 10**15}
BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
SECONDS |= {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
SECONDS |= {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
NOUNS = ("token", "step", "row", "sequence", "document", "sample")  # what is counted, in the plural too
NUMBER = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?(?:e\d+)?)\s*([A-Za-z]*)\s*([A-Za-z]*)\s*", re.ASCII)


def count(text: str) -> int:
    """A whole number: "15T", "128Ki tokens", "2_000 rows". Raises UserError."""
    match = NUMBER.fullmatch(text)
    multiple, noun = (match[2], match[3]) if match else ("", "")
    if multiple.removesuffix("s") in NOUNS and not noun:
        multiple, noun = "", multiple  # "200 rows"
    scale = {**DECIMAL, **BINARY}.get(multiple) if noun.removesuffix("s") in ("", *NOUNS) else None
    value = float(match[1].replace("_", "")) * scale if match and scale else None
    return _whole(value, text, '"2000 steps", "128Ki tokens" or "15T"')


def size(text: str) -> int:
    """Bytes: "80GiB", "10 MB", "4096". Raises UserError."""
    match = NUMBER.fullmatch(text)
    unit = match[2].removesuffix("B") if match and not match[3] else None
    scale = None if unit is None else {**DECIMAL, **BINARY}.get(unit)
    return _whole(float(match[1].replace("_", "")) * scale if match and scale else None, text, '"80GiB" or "10MB"')


def seconds(text: str) -> float:
    """Seconds: "150 s", "2 h", "1.5 days". Raises UserError."""
    match = NUMBER.fullmatch(text)
    scale = SECONDS.get(match[2]) if match and not match[3] else None
    if match is None or scale is None:
        raise UserError(f"{text!r} is no duration", expected='"150 s", "20 min", "2 h" or "40 days"')
    return float(match[1].replace("_", "")) * scale


def _whole(value: float | None, text: str, expected: str) -> int:
    if value is None or not value.is_integer():
        raise UserError(f"{text!r} is no whole quantity", expected=expected)
    return int(value)


def show_count(value: float) -> str:
    """Three digits and a multiple: 1234567 -> "1.23M"."""
    return _scaled(value, 1000, ("", "k", "M", "B", "T", "P"))


def show_flops(value: float) -> str:
    """FLOP/s with three digits: 9.46e11 -> "946 GFLOP/s"."""
    return _scaled(value, 1000, (" FLOP/s", " kFLOP/s", " MFLOP/s", " GFLOP/s", " TFLOP/s", " PFLOP/s"))


def show_bytes(value: float) -> str:
    """Three digits and a binary multiple: 1536 -> "1.50 KiB"."""
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def show_seconds(value: float) -> str:
    """The two largest units: 93784 -> "1 d 2 h"; below ten seconds with a decimal."""
    if value < 10:
        return f"{value:.1f} s"
    rest, parts = round(value), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        whole, rest = divmod(rest, length)
        if whole:
            parts.append(f"{whole} {unit}")
    return " ".join(parts[:2])


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= step * 0.9995 and power < len(units) - 1:
        value, power = value / step, power + 1
    if power == 0 and value == int(value):
        return f"{int(value)}{units[0]}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}{units[power]}"
