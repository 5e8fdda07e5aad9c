"""Files of fixed rows sorted by key, so that whoever joins parts reads the range of keys that is his from each.

What needs the whole corpus is two steps with such files between: memory is bounded by a range, no server is needed.
"""

from collections.abc import Sequence

import numpy as np

from pretrain.base.files import room_for
from pretrain.corpus.parts import Account, StepFile

RANGE_BYTES = 128 * 2**20  # of rows that one task holds


def ranges(rows: int, width: int) -> int:
    """Into how many ranges `rows` of `width` bytes are to be cut."""
    return max(1, -(-rows * width // RANGE_BYTES))


def write_rows(file: StepFile, rows: np.ndarray, **more: object) -> None:
    """Writes a structured array, sorted by all its fields, the first of which is `key`, uint64."""
    rows = np.sort(rows, order=rows.dtype.names)
    partial = file.partial
    with room_for(file.path):
        try:
            with partial.open("wb") as out:
                np.save(out, rows)
            file.commit(partial, Account(rows_in=len(rows), rows_out=len(rows)), **more)
        finally:
            partial.unlink(missing_ok=True)


def read_range(files: Sequence[StepFile], number: int, count: int, dtype: np.dtype) -> np.ndarray:
    """The rows of range `number` of `count` of all files, sorted. Raises DamagedError."""
    for file in files if number == 0 else ():
        file.check()  # once for all ranges
    low, high = (number << 64) // count, ((number + 1) << 64) // count
    return read_keys(files, low, high, dtype)


def read_keys(files: Sequence[StepFile], low: int, high: int, dtype: np.dtype) -> np.ndarray:
    """The rows with `low` ≤ key < `high` of all files, sorted."""
    found = [np.zeros(0, dtype)]
    for file in files:
        rows = np.load(file.path, mmap_mode="r")
        start = int(np.searchsorted(rows["key"], np.uint64(low)))
        stop = len(rows) if high >= 1 << 64 else int(np.searchsorted(rows["key"], np.uint64(high)))
        found.append(np.array(rows[start:stop]))
    return np.sort(np.concatenate(found), order=dtype.names)
