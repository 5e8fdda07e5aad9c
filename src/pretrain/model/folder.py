"""A released folder in the ecosystem's own format, and back: config.json and model.safetensors."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.extension import find, names
from pretrain.base.files import write
from pretrain.model.layers.rope import RopeScaling
from pretrain.model.weights import check, export, load, tie

CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"


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
    tensors = {name: tensor.to(kind).contiguous() for name, tensor in export(module, family.weights(config))}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    ids = {"bos_token_id": end, "eos_token_id": end}
    write(folder / CONFIG, json.dumps({**to_json(family, config, dtype), **ids}, indent=2) + "\n")
    write(folder / GENERATION, json.dumps({"_from_model_config": True, **ids}, indent=2) + "\n")


def to_json(family: ModuleType, config: Any, dtype: str) -> dict[str, object]:
    """config.json in the words of transformers 4 and 5 both, since readers of either are in use."""
    table = dataclasses.asdict(config)
    scaling = table.pop("rope_scaling", None)
    return {
        "architectures": [family.ARCHITECTURE],
        "model_type": family.MODEL_TYPE,
        **table,
        "head_dim": config.head_size,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta},
        **family.FIXED,
        "torch_dtype": dtype,
        "dtype": dtype,
    }


def read_config(folder: Path) -> tuple[ModuleType, Any]:
    """The family module and Config of a released folder. Raises UserError."""
    path = folder / CONFIG
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError("no config.json", where=str(folder), expected="a released model") from None
    except ValueError:
        raise DamagedError("cannot be read", where=str(path), expected="JSON") from None
    families = {find("model.families", name).ARCHITECTURE: name for name in names("model.families")}
    wanted = str((table.get("architectures") or ["?"])[0])
    if wanted not in families:
        raise UserError(f"architecture {wanted}", where=str(path), expected=" or ".join(sorted(families)))
    family = find("model.families", families[wanted])
    for name, only in family.FIXED.items():
        if table.get(name, only) != only:
            raise UserError(f"{name} = {table[name]!r} is not supported", where=str(path), expected=repr(only))
    rope = dict(table.get("rope_parameters") or {}) or dict(table.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", table.get("rope_theta", 10_000.0))
    kind = rope.setdefault("rope_type", rope.pop("type", "default"))
    known = {f.name for f in dataclasses.fields(family.Config)}
    values = {name: value for name, value in table.items() if name in known}
    values |= {"rope_theta": theta}
    if kind != "default":
        values |= {"rope_scaling": _scaling(rope, path)}
    elif "rope_scaling" in values:
        values |= {"rope_scaling": None}
    return family, family.Config(**values)


def _scaling(rope: dict[str, Any], path: Path) -> RopeScaling:
    try:
        return RopeScaling(**rope)
    except (TypeError, ValueError) as error:
        raise UserError(f"rope scaling: {error}", where=str(path), expected="the keys of rope_type llama3") from None


def load_folder(folder: Path) -> tuple[nn.Module, ModuleType, Any]:
    """(module in float32, family module, Config) of a released folder, ours or another's. Raises UserError."""
    family, config = read_config(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError("no safetensors file", where=str(folder), expected=WEIGHTS)
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    module = make(family, config)
    load(module, family.weights(config), config.axes(), tensors)
    return module, family, config
