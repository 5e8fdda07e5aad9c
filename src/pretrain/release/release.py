"""Writes the released folder, loads it back, and lets it stand only if its logits are the checkpoint's."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.base.errors import UserError
from pretrain.base.files import manifest_digest, new_folder, read_manifest, write
from pretrain.events.kinds import Released
from pretrain.model.folder import load_folder, write_folder
from pretrain.release.lineage import FILE, Lineage
from pretrain.tokenizer.tokenizer import Tokenizer

BOUNDS = {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest logit: rounding alone stays well below


def release(
    folder: Path,
    family: ModuleType,
    config: Any,
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    dtype: str,
    shard_bytes: int,
    card: str,
    lineage: Lineage,
    proof: Tensor,
    causal: bool = True,
) -> Released:
    """Replaces `folder` by the model, its tokenizer and its card, proved on tokens `proof` [batch, seq].

    A model that is not causal says so in config.json, under the name that transformers reads.

    Raises UserError, and leaves what stood there, where the logits differ by more than rounding.
    """
    with new_folder(folder) as partial:
        write_folder(partial, family, model, config, dtype=dtype, end=tokenizer.end, shard_bytes=shard_bytes,
                     causal=causal)  # fmt: skip
        accompany(partial, tokenizer, card, lineage)
        difference = prove(partial, model, proof, BOUNDS[dtype], causal=causal)
    return Released(str(folder), manifest_digest(read_manifest(folder)), difference)


def accompany(folder: Path, tokenizer: Tokenizer | None, card: str, lineage: Lineage) -> None:
    """What lies beside the weights: tokenizer, card, lineage.json."""
    if tokenizer is not None:
        tokenizer.save(folder)
    write(folder / "README.md", card)
    write(folder / FILE, json.dumps(lineage, indent=1, ensure_ascii=False) + "\n")


@torch.no_grad()
def prove(folder: Path, model: nn.Module, proof: Tensor, bound: float, *, causal: bool = True) -> float:
    """Largest difference of logits between a folder and the live model, relative to the largest. Raises UserError."""
    asked, (back, _, _) = {} if causal else {"causal": False}, load_folder(folder)
    live = model.get_submodule("head")(model(proof, **asked).hidden)
    there = back.get_submodule("head")(back(proof.cpu(), **asked).hidden)
    difference = float((live.cpu() - there).abs().max() / live.abs().max())
    if not difference <= bound:
        what = f"the written model's logits differ from the checkpoint's by {difference:.1e} of the largest"
        raise UserError(what, where=str(folder), expected=f"at most {bound:.0e}; nothing was released")
    return difference
