"""A dense model goes on as a mixture of experts (Komatsuzaki et al. 2023, arXiv 2212.05055)."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.model.config import from_json, to_json
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import expand, held, initialise

STACKS = "mlp.stacks."


def upcycle(folder: Path, use: str, seed: int, **said: object) -> tuple[nn.Module, ModuleType, Any]:
    """(module, family module, Config) of the family `use` with the weights of a dense folder: each expert is a copy of
    the feed-forward layer, routers are drawn.

    What is `said` are keys of the new config.json beside the old ones. Where the weights of chosen experts sum to one,
    the logits are the dense model's. Raises UserError where the families differ in more than their experts.
    """
    dense, old, old_config = load_folder(folder)
    family = find("model.families", use)
    follows = old.written(old_config) if hasattr(old, "written") else {}
    table = {name: value for name, value in to_json(old, old_config, "").items() if name not in follows}
    table |= {"architectures": [family.ARCHITECTURE], "model_type": family.MODEL_TYPE}
    if "moe_intermediate_size" in family.Config.__dataclass_fields__:
        table["moe_intermediate_size"] = table["intermediate_size"]
    config = from_json(family, table | said, folder)
    module, rows = make(family, config), expand(family.weights(config))
    initialise(module, [row for row in rows if "choice" in row.axes.split()], config.initializer_range, seed)
    left = {row.name for row in expand(old.weights(old_config)) if row.tied is None}
    with torch.no_grad():
        for row in (row for row in rows if row.tied is None and "choice" not in row.axes.split()):
            name = f"{row.name.replace(STACKS, 'mlp.')}.weight" if STACKS in row.name else row.name
            if name not in left:
                raise UserError(
                    f"{use} has {row.name}", where=str(folder), expected=f"a family that {old.MODEL_TYPE} fits"
                )
            held(module, row.name).copy_(held(dense, name))  # to every expert of a stack alike
            left.remove(name)
    if left:
        raise UserError(f"{use} has no place for {min(left)}", where=str(folder), expected=f"a family with {min(left)}")
    return module, family, config
