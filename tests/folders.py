"""A module as a released folder, for tests of what reads one."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pretrain.model.folder import said_of, write_model
from pretrain.model.tensor_files import SHARD_BYTES
from pretrain.model.weights import export


def write_folder(
    folder: Path,
    family: ModuleType,
    module: nn.Module,
    config: Any,
    *,
    dtype: str,
    end: int | None,
    shard_bytes: int = SHARD_BYTES,
    causal: bool = True,
) -> None:
    """Writes a module as a released folder; `end` is the id that begins and ends a document."""
    tensors = export(module, family.weights(config), config.axes(), getattr(torch, dtype))
    said = said_of(end, causal=causal)
    write_model(folder, family, config, tensors, dtype=dtype, shard_bytes=shard_bytes, said=said)
