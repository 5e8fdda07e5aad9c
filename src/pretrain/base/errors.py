"""Errors that a user can cause, said in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A user's mistake: what, where, what was expected and the nearest right name; shown without a traceback."""

    def __init__(self, what: str, *, where: str = "", expected: str = "", near: str = "") -> None:
        self.what, self.where, self.expected, self.near = what, where, expected, near
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line += f"; expected {self.expected}" if self.expected else ""
        return line + (f"; nearest: {self.near}" if self.near else "")


class MachineError(Exception):
    """What a machine does wrong, not its user: shown without a traceback, and another machine may do it right."""


class DamagedError(UserError):
    """A file that is not what its manifest says."""


class DiskFullError(UserError):
    """A write that found no room on the disk."""


def nearest(name: str, names: Iterable[str]) -> str:
    """The name most like `name`, or "" where none is close."""
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)), "")
