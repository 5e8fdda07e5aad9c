"""Tensors in pieces: every rank writes what it holds, and any layout reads what it needs of it.

`model.safetensors` holds whole tensors. Where ranks hold parts, rank r writes `model-0000r.safetensors`, and
`model-0000r.json` says which blocks of which whole tensor they are.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pretrain.base.errors import DamagedError
from pretrain.base.files import read_manifest
from pretrain.base.remote import Place
from pretrain.model.tensor_files import WRITTEN, header
from pretrain.parallel.pieces import Box
from pretrain.parallel.pieces import whole as everything

Part = tuple[tuple[int, ...], Sequence[Box], Tensor]  # shape of the whole, blocks of it, what this rank holds
READ = {name: dtype for dtype, name in WRITTEN.items()}
CHUNK = 1 << 24  # bytes written at a time


@dataclass(frozen=True)
class Content:
    """A file of tensors that is to be written: its first bytes, then these tensors."""

    name: str
    first: bytes
    tensors: Sequence[Tensor]

    @classmethod
    def of(cls, name: str, tensors: Mapping[str, Tensor]) -> "Content":
        """A safetensors file."""
        first, places = header(tensors)
        return cls(name, first, [tensors[one].detach() for one in places])

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def copied(self, buffer: Tensor) -> "Content":
        """The same file of tensors that are copied to `buffer` [bytes]; from a device, in its current stream."""
        places, at = list[Tensor](), 0
        for tensor in self.tensors:
            places.append(buffer[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
            at += tensor.nbytes
        if places:
            torch._foreach_copy_(places, list(self.tensors), non_blocking=True)
        return replace(self, tensors=places)

    def chunks(self) -> Iterator[memoryview]:
        """Its bytes."""
        yield memoryview(self.first)
        for tensor in self.tensors:
            flat = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            yield from (flat[start : start + CHUNK] for start in range(0, len(flat), CHUNK))


def part_files(parts: Mapping[str, Part], kind: str, rank: int) -> tuple[Content, str]:
    """A rank's file of parts, and the table beside it."""
    table = {
        key: [shape, [[box.start, box.at, box.size] for box in blocks]] for key, (shape, blocks, _) in parts.items()
    }
    tensors = {key: own for key, (_, _, own) in parts.items()}
    return Content.of(f"{kind}-{rank:05d}.safetensors", tensors), json.dumps(table)


class Stored(NamedTuple):
    """Where a tensor lies in a file: `start` in bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


class Saved:
    """The tensors of one kind in a checkpoint, whole or in parts, read a block at a time."""

    def __init__(self, folder: Place, kind: str) -> None:
        self._tables: dict[str, list[tuple[Place, list[Box]]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._headers: dict[Place, dict[str, Stored]] = {}
        for file in sorted(read_manifest(folder)):
            if file == f"{kind}.safetensors":
                for name, stored in self._header(folder / file).items():
                    self._add(name, stored.shape, folder / file, [everything(stored.shape)])
            elif file.startswith(f"{kind}-") and file.endswith(".json"):
                for name, (shape, blocks) in json.loads((folder / file).read_bytes()).items():
                    boxes = [Box(tuple(start), tuple(at), tuple(size)) for start, at, size in blocks]
                    self._add(name, tuple(shape), folder / file.replace(".json", ".safetensors"), boxes)

    def _add(self, name: str, shape: tuple[int, ...], path: Place, boxes: list[Box]) -> None:
        self._shapes[name] = shape
        self._tables.setdefault(name, []).append((path, boxes))

    def _header(self, path: Place) -> dict[str, Stored]:
        if path not in self._headers:
            size = int.from_bytes(_bytes(path, 0, 8).tobytes(), "little")
            table = json.loads(_bytes(path, 8, size).tobytes())
            self._headers[path] = {
                name: Stored(READ[one["dtype"]], tuple(one["shape"]), 8 + size + one["data_offsets"][0])
                for name, one in table.items()
                if name != "__metadata__"
            }
        return self._headers[path]

    def names(self) -> list[str]:
        """Of all tensors."""
        return list(self._shapes)

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor."""
        path, _ = self._tables[name][0]
        return self._header(path)[name].dtype

    def whole(self, name: str) -> Tensor:
        """A tensor in one piece."""
        return self.read(name, everything(self._shapes[name]))

    def read(self, name: str, wanted: Box) -> Tensor:
        """A block of a tensor, of whatever pieces hold parts of it."""
        out: Tensor | None = None
        for path, boxes in self._tables[name]:
            for box in boxes:
                low = [max(a, b) for a, b in zip(box.start, wanted.start, strict=True)]
                ends = zip(box.start, box.size, wanted.start, wanted.size, strict=True)
                high = [min(a + n, b + m) for a, n, b, m in ends]
                if any(a >= b for a, b in zip(low, high, strict=True)):
                    continue
                there = _slices(low, high, [a - b for a, b in zip(box.start, box.at, strict=True)])
                part = self._block(path, name, there)
                out = torch.empty(wanted.size, dtype=part.dtype) if out is None else out
                out[_slices(low, high, wanted.start)] = part
        return torch.empty(wanted.size) if out is None else out

    def _block(self, path: Place, name: str, there: tuple[slice, ...]) -> Tensor:
        """A block of what a file holds: of its rows no others are read."""
        stored = self._header(path)[name]
        first, last = (there[0].start, there[0].stop) if there else (0, 1)
        row = prod(stored.shape[1:]) * stored.dtype.itemsize
        rows = torch.from_numpy(_bytes(path, stored.start + first * row, (last - first) * row)).view(stored.dtype)
        return rows.view(last - first, *stored.shape[1:])[(slice(None), *there[1:])] if there else rows.view(())


def _bytes(path: Place, start: int, size: int) -> np.ndarray:
    """So many bytes of a file from `start` on. Raises DamagedError where it has fewer."""
    if isinstance(path, Path):
        found = np.fromfile(path, np.uint8, size, offset=start)
    else:
        found = np.frombuffer(bytearray(path.read_bytes(start, start + size)), np.uint8)
    if len(found) != size:
        raise DamagedError(f"ends before byte {start + size}", where=str(path), expected="a whole file")
    return found


def _slices(low: Sequence[int], high: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a - zero, b - zero) for a, b, zero in zip(low, high, origin, strict=True))
