"""A released folder in the ecosystem's own format, and back: config.json and safetensors, whole or in shards."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.base.files import write
from pretrain.model.config import CONFIG, IS_CAUSAL, read_config, to_json
from pretrain.model.tensor_files import Tensors, write_tensors
from pretrain.model.weights import Weight, cast, check, export, load, matched, tie

GENERATION = "generation_config.json"


def make(family: ModuleType, config: Any) -> nn.Module:
    """The module of a family's Config, held against its table and tied; its weights are not yet drawn."""
    module = family.build(config)
    rows = family.weights(config)
    check(module, rows, config.axes())
    tie(module, rows)
    return module


def shell(family: ModuleType, config: Any) -> nn.Module:
    """The module on the meta device: shapes without memory, but for what is no weight (frequencies)."""
    with torch.device("meta"):
        return make(family, config)


def materialise(module: nn.Module, rows: Sequence[Weight], device: str) -> None:
    """Gives weights without memory some on a device, with no numbers yet; what has its numbers moves there."""
    module._apply(lambda one: torch.empty_like(one, device=device) if one.is_meta else one.to(device))
    tie(module, rows)


def said_of(end: int | None, *, causal: bool) -> dict[str, object]:
    """What config.json says beside a family's own keys, under the names that transformers reads."""
    return {"bos_token_id": end, "eos_token_id": end, **({} if causal else {IS_CAUSAL: False})}


def write_model(
    folder: Path,
    family: ModuleType,
    config: Any,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: str,
    shard_bytes: int,
    said: Mapping[str, object],
) -> None:
    """Writes config.json, with what is `said` beside the family's own keys, its ids in generation_config.json, and the
    tensors as they come.

    `dtype` is "float32", "bfloat16" or "float16", that of the tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / CONFIG, json.dumps({**to_json(family, config, dtype), **said}, indent=2) + "\n")
    ids = {name: value for name, value in said.items() if name.endswith("_token_id")}
    write(folder / GENERATION, json.dumps({"_from_model_config": True, **ids}, indent=2) + "\n")
    rows, axes = family.weights(config), config.axes()
    shells = dict(export(shell(family, config), rows, axes, getattr(torch, dtype)))
    write_tensors(folder, shells, tensors, shard_bytes)


def load_folder(folder: Path) -> tuple[nn.Module, ModuleType, Any]:
    """(module in float32, family module, Config) of a released folder, ours or another's. Raises UserError."""
    family, config = read_config(folder)
    module = make(family, config)
    tensors = Tensors(folder, getattr(family, "IGNORED", ()))
    load(module, family.weights(config), config.axes(), tensors, tensors.where)
    return module, family, config


def checked(folder: Path, family: ModuleType, config: Any, dtype: str | None = None) -> Iterator[tuple[str, Tensor]]:
    """(the name we write, tensor) of a folder, one at a time, held against the table; in `dtype`, but for buffers.

    Raises UserError as `load_folder` does.
    """
    tensors, module = Tensors(folder, getattr(family, "IGNORED", ())), shell(family, config)
    kind = None if dtype is None else getattr(torch, dtype)
    for name, weight, _, value in matched(module, family.weights(config), config.axes(), tensors, tensors.where):
        yield name, cast(name, value, torch.float32 if weight.buffer else kind)
