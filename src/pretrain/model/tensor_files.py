"""Safetensors in a folder, one file or shards under an index: read and written a tensor at a time.

The format: 8 bytes with the header's length, the header (JSON: dtype, shape, place of each tensor), the tensors.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import write

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # most in a file, as transformers has long split them
WRITTEN = {  # as the format orders them
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3", torch.int16: "I16", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
}  # fmt: skip
NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # as headers call them
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Tensors(Mapping[str, Tensor]):
    """The tensors of a folder by name, each mapped when asked for and let go with it; what matches one of `ignored` is
    passed over.

    Raises UserError where a file is missing, cut short, or holds other tensors than the index says.
    """

    def __init__(self, folder: Path, ignored: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        for file, listed in _files(folder).items():
            held = _names(file)
            for name in listed - held:
                raise UserError(f"tensor {name} is not in {file.name}", where=str(folder / INDEX), expected="it there")
            for name in held & self._files.keys():
                raise UserError(f"tensor {name} is also in {self._files[name].name}", where=str(file), expected="one")
            self._files |= dict.fromkeys(sorted(held), file)
        drop = re.compile("|".join(ignored)) if ignored else None
        self._files = {n: file for n, file in self._files.items() if drop is None or not drop.fullmatch(n)}

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as opened:
            return opened.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def where(self, name: str) -> str:
        """The file that holds a tensor; the folder, if none does."""
        return str(self._files.get(name, self.folder))

    def dtypes(self) -> dict[str, int]:
        """Numbers by the dtype they are kept in, from the headers alone."""
        found: dict[str, int] = {}
        for file in dict.fromkeys(self._files.values()):
            with safe_open(file, "pt") as opened:
                for name in (name for name, held in self._files.items() if held == file):
                    part = opened.get_slice(name)
                    found[part.get_dtype()] = found.get(part.get_dtype(), 0) + prod(part.get_shape())
        return found


def _names(file: Path) -> set[str]:
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"cannot be read: {error}", where=str(file), expected="safetensors") from None


def _files(folder: Path) -> dict[Path, set[str]]:
    """The files of the index, each with the tensors it should hold, or the one file. Raises UserError."""
    if (folder / INDEX).is_file():
        files: dict[Path, set[str]] = {}
        try:
            table: dict[str, Any] = json.loads((folder / INDEX).read_bytes())["weight_map"]
            for tensor, name in table.items():
                files.setdefault(folder / str(name), set()).add(tensor)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise DamagedError("cannot be read", where=str(folder / INDEX), expected="a weight_map") from None
        for file, held in files.items():
            if file.parent != folder or not file.is_file():
                what = f"no file {file.relative_to(folder) if file.is_relative_to(folder) else file}"
                raise UserError(f"{what}, which holds {min(held)}", where=str(folder / INDEX), expected="every file")
        return files
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: set()}
    if pickles := sorted(file.name for kind in PICKLES for file in folder.glob(kind)):
        what = f"no safetensors file; {pickles[0]} is a pickle, which could run any code and is never opened"
        raise UserError(what, where=str(folder), expected=f"{WEIGHTS} or {INDEX}")
    raise UserError("no safetensors file", where=str(folder), expected=f"{WEIGHTS} or {INDEX}")


def write_tensors(
    folder: Path, shells: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes each tensor to its place as it comes, in any order; `shells` are all of them on the meta device."""
    shards = split(shells, shard_bytes)
    count = len(shards)
    names = [WEIGHTS] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    places = {}
    for name, shard in zip(names, shards, strict=True):
        for one, offset in _begin(folder / name, {one: shells[one] for one in shard}):
            places[one] = (folder / name, offset)
    left = set(places)
    for name, tensor in tensors:
        assert (tensor.dtype, tensor.shape) == (shells[name].dtype, shells[name].shape), name
        path, offset = places[name]
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        left.remove(name)
    assert not left, f"never came: {sorted(left)}"
    if count > 1:
        size = sum(tensor.nbytes for tensor in shells.values())
        table = {name: path.name for name, (path, _) in sorted(places.items())}
        write(folder / INDEX, json.dumps({"metadata": {"total_size": size}, "weight_map": table}, indent=2) + "\n")


def split(shells: Mapping[str, Tensor], most: int) -> list[list[str]]:
    """Names in the order of layers, cut where a file would hold more than `most` bytes; a larger tensor is alone."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(shells, key=_by_layer):
        if shards[-1] and size + shells[name].nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += shells[name].nbytes
    return shards


def _by_layer(name: str) -> list[tuple[int, str]]:
    """Sorts numbers inside a name as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def header(shells: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file of these tensors, and where each goes in bytes from the file's start, in that order:
    the largest dtypes first, so that each lies at a multiple of its size."""
    ranks = list(WRITTEN)
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places, end = {}, 0
    for name in sorted(shells, key=lambda name: (-ranks.index(shells[name].dtype), name)):
        shell, start = shells[name], end
        end += shell.nbytes
        table[name] = {"dtype": WRITTEN[shell.dtype], "shape": list(shell.shape), "data_offsets": [start, end]}
        places[name] = start
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, {name: 8 + len(text) + start for name, start in places.items()}


def _begin(path: Path, shells: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Writes a file's header, and leaves room for its tensors; (tensor, where it goes)."""
    first, places = header(shells)
    with path.open("wb") as file:
        file.write(first)
        file.truncate(len(first) + sum(shell.nbytes for shell in shells.values()))
    yield from places.items()
