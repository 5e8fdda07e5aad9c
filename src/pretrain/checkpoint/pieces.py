"""Tensors in pieces: every rank writes what it holds, and any layout reads what it needs of it.

`model.safetensors` holds whole tensors. Where ranks hold parts, rank r writes `model-0000r.safetensors`, and
`model-0000r.json` says which blocks of which whole tensor they are.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pretrain.base.files import write
from pretrain.parallel.pieces import Box
from pretrain.parallel.pieces import whole as everything

Part = tuple[tuple[int, ...], Sequence[Box], Tensor]  # shape of the whole, blocks of it, what this rank holds


def save_parts(parts: Mapping[str, Part], folder: Path, kind: str, rank: int) -> None:
    """Writes one rank's parts."""
    name = f"{kind}-{rank:05d}"
    save_file({key: own.contiguous() for key, (_, _, own) in parts.items()}, folder / f"{name}.safetensors")
    table = {
        key: [shape, [[box.start, box.at, box.size] for box in blocks]] for key, (shape, blocks, _) in parts.items()
    }
    write(folder / f"{name}.json", json.dumps(table))


class Saved:
    """The tensors of one kind in a checkpoint, whole or in parts."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._tables: dict[str, list[tuple[Path, list[Box]]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        whole = folder / f"{kind}.safetensors"
        if whole.is_file():
            with safe_open(whole, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - a handle, not a table
                    shape = tuple(file.get_slice(name).get_shape())
                    self._add(name, shape, whole, [everything(shape)])
        for path in sorted(folder.glob(f"{kind}-*.json")):
            for name, (shape, blocks) in json.loads(path.read_bytes()).items():
                boxes = [Box(tuple(start), tuple(at), tuple(size)) for start, at, size in blocks]
                self._add(name, tuple(shape), path.with_suffix(".safetensors"), boxes)

    def _add(self, name: str, shape: tuple[int, ...], path: Path, boxes: list[Box]) -> None:
        self._shapes[name] = shape
        self._tables.setdefault(name, []).append((path, boxes))

    def names(self) -> list[str]:
        """Of all tensors."""
        return list(self._shapes)

    def whole(self, name: str) -> Tensor:
        """A tensor in one piece."""
        return self.read(name, everything(self._shapes[name]))

    def read(self, name: str, wanted: Box) -> Tensor:
        """A block of a tensor, of whatever pieces hold parts of it."""
        out: Tensor | None = None
        for path, boxes in self._tables[name]:
            with safe_open(path, "pt") as file:
                stored = file.get_slice(name)
                for box in boxes:
                    low = [max(a, b) for a, b in zip(box.start, wanted.start, strict=True)]
                    ends = zip(box.start, box.size, wanted.start, wanted.size, strict=True)
                    high = [min(a + n, b + m) for a, n, b, m in ends]
                    if any(a >= b for a, b in zip(low, high, strict=True)):
                        continue
                    there = _slices(low, high, [a - b for a, b in zip(box.start, box.at, strict=True)])
                    part = stored[there] if there else file.get_tensor(name)
                    out = torch.empty(wanted.size, dtype=part.dtype) if out is None else out
                    out[_slices(low, high, wanted.start)] = part
        return torch.empty(wanted.size) if out is None else out


def _slices(low: Sequence[int], high: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a - zero, b - zero) for a, b, zero in zip(low, high, origin, strict=True))
