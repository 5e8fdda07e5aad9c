"""Exact copies: equal text."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Exact:
    """Keeps one document of every text."""

    reason: ClassVar[str] = "exact copy"
