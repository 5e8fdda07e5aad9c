"""Best-fit packing (Ding et al. 2024, arXiv 2404.10830): documents are cut only where they are longer than a row.

What is left of each document then goes, the longest first, into the row that it fills best.
"""

import io
from pathlib import Path

import numpy as np

from pretrain.base.files import write
from pretrain.shards.read import Shard

PACK_VERSION = 1
PIECES = np.dtype([("row", "<u4"), ("document", "<u4"), ("start", "<u4"), ("stop", "<u4")])


def best_fit(lengths: np.ndarray, row: int) -> np.ndarray:
    """PIECES in the order of their rows, of lengths [documents]: which tokens of which document stand where.

    Rows that a piece fills come first, in the documents' order.
    """
    whole = lengths // row
    full = np.repeat(np.arange(len(lengths)), whole)
    nth = np.arange(len(full)) - np.repeat(np.cumsum(whole) - whole, whole)
    rest = lengths - whole * row
    rows = _fit(rest, row)
    left = np.flatnonzero(rest)
    pieces = np.zeros(len(full) + len(left), PIECES)
    pieces["row"] = np.concatenate([np.arange(len(full)), len(full) + rows[left]])
    pieces["document"] = np.concatenate([full, left])
    pieces["start"] = np.concatenate([nth * row, (whole * row)[left]])
    pieces["stop"] = np.concatenate([(nth + 1) * row, lengths[left]])
    return pieces[np.argsort(pieces["row"], kind="stable")]


def _fit(lengths: np.ndarray, row: int) -> np.ndarray:
    """The row of each length below `row`; rows of the same room wait in a pile, a bit says which piles have any."""
    piles: list[list[int]] = [[] for _ in range(row + 1)]
    rooms, rows, out = 0, 0, np.zeros(len(lengths), np.int64)
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        if not length:
            break
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            out[i] = piles[room].pop()
            if not piles[room]:
                rooms ^= 1 << room
        else:
            room, out[i], rows = row, rows, rows + 1
        if room > length:
            piles[room - length].append(int(out[i]))
            rooms |= 1 << (room - length)
    return out


def table_name(row: int) -> str:
    """The folder, beside a catalogue, that holds the tables for a row length."""
    return f"best_fit-{PACK_VERSION}-{row}"


def write_table(shard: Shard, row: int, out: Path) -> None:
    """The table of a shard as a .npy file."""
    file = io.BytesIO()
    np.save(file, best_fit(np.diff(shard.bounds), row), allow_pickle=False)
    write(out, file.getvalue())


def pack_shard(path: Path, row: int, out: Path, journal: object) -> None:
    """The same, as a task of the corpus' engine."""
    write_table(Shard(path), row, out)
