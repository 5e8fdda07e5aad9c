"""A released folder in the ecosystem's own format, and back: config.json and safetensors, whole or in shards."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import write
from pretrain.model.config import CONFIG, read_config, to_json
from pretrain.model.weights import check, export, load, tie

WEIGHTS, INDEX, GENERATION = "model.safetensors", "model.safetensors.index.json", "generation_config.json"


def make(family: ModuleType, config: Any) -> nn.Module:
    """The module of a family's Config, held against its table and tied; its weights are not yet drawn."""
    module = family.build(config)
    rows = family.weights(config)
    check(module, rows, config.axes())
    tie(module, rows)
    return module


def write_folder(
    folder: Path, family: ModuleType, module: nn.Module, config: Any, *, dtype: str, end: int | None
) -> None:
    """Writes config.json, generation_config.json and model.safetensors (`dtype` "float32" or "bfloat16")."""
    kind: torch.dtype = getattr(torch, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(export(module, family.weights(config), config.axes(), kind))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    ids = {"bos_token_id": end, "eos_token_id": end}
    write(folder / CONFIG, json.dumps({**to_json(family, config, dtype), **ids}, indent=2) + "\n")
    write(folder / GENERATION, json.dumps({"_from_model_config": True, **ids}, indent=2) + "\n")


class Tensors(Mapping[str, Tensor]):
    """The tensors of a folder by name, each read when asked for; names that match one of `ignored` are passed over."""

    def __init__(self, folder: Path, ignored: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for file in _files(folder):
            try:
                self._open[file] = safe_open(file, "pt")
            except (SafetensorError, OSError) as error:
                raise DamagedError(f"cannot be read: {error}", where=str(file), expected="safetensors") from None
            self._files |= dict.fromkeys(self._open[file].keys(), file)
        drop = re.compile("|".join(ignored)) if ignored else None
        self._files = {n: file for n, file in self._files.items() if drop is None or not drop.fullmatch(n)}

    def __getitem__(self, name: str) -> Tensor:
        return self._open[self._files[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def where(self, name: str) -> str:
        """The file that holds a tensor; the folder, if none does."""
        return str(self._files.get(name, self.folder))


def _files(folder: Path) -> list[Path]:
    """The files of the index, or the one file. Raises UserError where there is neither."""
    if (folder / INDEX).is_file():
        try:
            listed = sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise DamagedError("cannot be read", where=str(folder / INDEX), expected="a weight_map") from None
        for name in listed:
            if Path(name).name != name or not (folder / name).is_file():
                raise UserError(f"no file {name}", where=str(folder / INDEX), expected="every file that it names")
        return [folder / name for name in listed]
    if not (folder / WEIGHTS).is_file():
        raise UserError("no safetensors file", where=str(folder), expected=f"{WEIGHTS} or {INDEX}")
    return [folder / WEIGHTS]


def load_folder(folder: Path) -> tuple[nn.Module, ModuleType, Any]:
    """(module in float32, family module, Config) of a released folder, ours or another's. Raises UserError."""
    family, config = read_config(folder)
    tensors = Tensors(folder, getattr(family, "IGNORED", ()))
    module = make(family, config)
    load(module, family.weights(config), config.axes(), tensors, tensors.where)
    return module, family, config
