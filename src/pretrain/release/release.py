"""Writes the released folder, loads it back, and lets it stand only if its logits are the checkpoint's."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.base.errors import UserError
from pretrain.base.files import manifest_digest, new_folder, read_manifest, write
from pretrain.events.kinds import Released
from pretrain.model.folder import load_folder, write_folder
from pretrain.tokenizer.tokenizer import Tokenizer

BOUNDS = {"float32": 1e-6, "bfloat16": 3e-2}  # of the largest logit: rounding alone stays well below


def release(
    folder: Path,
    family: ModuleType,
    config: Any,
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    dtype: str,
    card: str,
    proof: Tensor,
) -> Released:
    """Replaces `folder` by the model, its tokenizer and its card, proved on tokens `proof` [batch, seq].

    Raises UserError, and leaves what stood there, where the logits differ by more than rounding.
    """
    with new_folder(folder) as partial:
        write_folder(partial, family, model, config, dtype=dtype, end=tokenizer.end)
        tokenizer.save(partial)
        write(partial / "README.md", card)
        difference = prove(partial, model, proof, BOUNDS[dtype])
    return Released(str(folder), manifest_digest(read_manifest(folder)), difference)


@torch.no_grad()
def prove(folder: Path, model: nn.Module, proof: Tensor, bound: float) -> float:
    """Largest difference of logits between a folder and the live model, relative to the largest. Raises UserError."""
    back, _, _ = load_folder(folder)
    live = model.logits(proof)  # type: ignore[operator]
    there = back.logits(proof.cpu())  # type: ignore[operator]
    difference = float((live.cpu() - there).abs().max() / live.abs().max())
    if not difference <= bound:
        what = f"the written model's logits differ from the checkpoint's by {difference:.1e} of the largest"
        raise UserError(what, where=str(folder), expected=f"at most {bound:.0e}; nothing was released")
    return difference
