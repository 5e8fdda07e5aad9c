"""Writes the released folder, and lets it stand only if, loaded back, its logits are the checkpoint's."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.base.errors import UserError
from pretrain.base.files import manifest_digest, new_folder, read_manifest, write
from pretrain.events.kinds import Released
from pretrain.model.folder import said_of, write_model
from pretrain.model.weights import exported
from pretrain.release.lineage import FILE, Lineage
from pretrain.tokenizer.tokenizer import Tokenizer

BOUNDS = {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest logit: rounding alone stays well below


def release(
    folder: Path,
    family: ModuleType,
    config: Any,
    weight: Callable[[str], Tensor],
    tokenizer: Tokenizer,
    *,
    dtype: str,
    shard_bytes: int,
    card: str,
    lineage: Lineage,
    prove: Callable[[Path], float] | None = None,
    causal: bool = True,
) -> Released:
    """Replaces `folder` by a model, whose weights are asked for by name one at a time, its tokenizer and its card, once
    `prove`, if any, which returns how far logits are off, has let it pass.

    A model that is not causal says so in config.json, under the name that transformers reads. Raises UserError, and
    leaves what stood there.
    """
    with new_folder(folder) as partial:
        tensors = exported(weight, family.weights(config), config.axes(), getattr(torch, dtype))
        said = said_of(tokenizer.end, causal=causal)
        write_model(partial, family, config, tensors, dtype=dtype, shard_bytes=shard_bytes, said=said)
        accompany(partial, tokenizer, card, lineage)
        difference = prove(partial) if prove else 0.0
    return Released(str(folder), manifest_digest(read_manifest(folder)), difference)


def accompany(folder: Path, tokenizer: Tokenizer | None, card: str, lineage: Lineage) -> None:
    """What lies beside the weights: tokenizer, card, lineage.json."""
    if tokenizer is not None:
        tokenizer.save(folder)
    write(folder / "README.md", card)
    write(folder / FILE, json.dumps(lineage, indent=1, ensure_ascii=False) + "\n")


def agree(live: nn.Module, back: nn.Module, proof: Tensor, dtype: str, where: Path, *, causal: bool = True) -> float:
    """Largest difference of two models' logits on tokens `proof` [batch, seq], relative to the largest; `back` was read
    from a folder of a dtype. Raises UserError where rounding does not account for it."""
    mine, theirs = (_logits(model, proof, causal=causal) for model in (live, back))
    difference, bound = float((mine - theirs).abs().max() / mine.abs().max()), BOUNDS[dtype]
    if not difference <= bound:
        what = f"the written model's logits differ from the checkpoint's by {difference:.1e} of the largest"
        raise UserError(what, where=str(where), expected=f"at most {bound:.0e}; nothing was released")
    return difference


@torch.no_grad()
def _logits(model: nn.Module, tokens: Tensor, *, causal: bool) -> Tensor:
    asked = {} if causal else {"causal": False}
    hidden = model(tokens.to(next(model.parameters()).device), **asked).hidden
    logits: Tensor = model.get_submodule("head")(hidden)
    return logits.cpu()
