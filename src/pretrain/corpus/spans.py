"""Where a large file is cut, so that many work on it: looked for once, by a worker, and kept among the step files."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from pretrain.corpus.exchange import write_rows
from pretrain.corpus.parts import Span, StepFile
from pretrain.corpus.sources import SourceFile
from pretrain.corpus.task import Journal

SPANS = np.dtype([("key", "<u8"), ("stop", "<u8"), ("first", "<u8")])  # `key` is where a span starts


class Spanned(Protocol):
    """A reader that knows where a file can be cut."""

    def spans(self, file: SourceFile, size: int) -> Iterable[Span]:
        """Spans of about `size` bytes, in order, from one end of the file to the other; none where it stays whole."""
        ...


def write_spans(file: SourceFile, reader: Spanned, size: int, out: StepFile, journal: Journal) -> None:
    """The spans of a file; none where its reader dies on it, as it will when it reads it."""
    found = list[Span]()
    if journal.at(0):
        for number, span in enumerate(reader.spans(file, size), 1):
            found.append(span)
            if not journal.at(0, number):
                found.clear()
                break
    write_rows(out, np.array(found, SPANS))


def read_spans(file: StepFile) -> list[Span]:
    """What `write_spans` found. Raises DamagedError."""
    file.check()
    return [(int(start), int(stop), int(first)) for start, stop, first in np.load(file.path)]
