"""A published model given a longer context or a larger vocabulary.

A context grows by other turns alone, no weight of it: `rope_scaling` (model/layers/rope.py says the kinds and their
papers) or a larger `rope_theta` (Xiong et al. 2023, arXiv 2309.16039). New ids get the mean of the old rows, in the
embedding and in the head: then the loss on what was known before rises by log(1 + new / old) at most (Hewitt 2021,
nlp.stanford.edu/~johnhew/vocab-expansion.html); a little noise sets them apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pretrain.base.random import key
from pretrain.model.config import to_json
from pretrain.model.weights import Weight, expand

NOISE = 1e-2  # of each feature's spread over the old rows
CONTEXT = ("max_position_embeddings", "rope_scaling", "rope_theta")
# What may differ from a folder that training starts from; "rope_parameters" says again what the first ones say.
FREE = (*CONTEXT, "rope_parameters", "vocab_size", "initializer_range")


def unlike(family: ModuleType, theirs: Any, ours: Any) -> list[str]:
    """In what a published Config and the one wanted differ, "hidden_size 32, not 64", but for what can be extended.

    Raises ValueError for a smaller vocabulary, and for turns that do not fit the context.
    """
    if ours.vocab_size < theirs.vocab_size:
        raise ValueError(f"vocab_size {ours.vocab_size} is less than the {theirs.vocab_size} that are there")
    if hasattr(theirs, "rope_scaling") and any(getattr(theirs, name) != getattr(ours, name) for name in CONTEXT):
        _check_context(theirs, ours)
    old, new = to_json(family, theirs, ""), to_json(family, ours, "")
    names = [name for name in {**new, **old} if name not in FREE and old.get(name) != new.get(name)]
    return [f"{name} {old.get(name)}, not {new.get(name)}" for name in names]


def _check_context(theirs: Any, ours: Any) -> None:
    """The length that the old weights know, stretched by the factor, holds the new one."""
    new, old, wanted = ours.rope_scaling, theirs.rope_scaling, ours.max_position_embeddings
    if new is None or new == old:
        return
    known = (old.original_max_position_embeddings if old else None) or theirs.max_position_embeddings
    if new.rope_type == "dynamic":
        if wanted != known:
            raise ValueError(
                f"rope_type dynamic grows from what is known: max_position_embeddings {wanted}, not {known}"
            )
        return
    if new.original_max_position_embeddings not in (None, known):
        said = new.original_max_position_embeddings
        raise ValueError(f"rope_scaling.original_max_position_embeddings {said}, but the model knows {known}")
    if known * new.factor < wanted:
        reached = f"{known} · {new.factor:g} = {known * new.factor:g}"
        raise ValueError(f"rope_scaling.factor reaches {reached}, less than max_position_embeddings {wanted}")


class Grown(Mapping[str, Tensor]):
    """The tensors of a file, those that have a row for each id with `ids` rows, each made when asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: Sequence[Weight], ids: int, seed: int) -> None:
        self.tensors, self.ids, self.seed = tensors, ids, seed
        by_id = [weight for weight in expand(rows) if weight.axes.split()[0] == "vocab"]
        self.by_id = {name for weight in by_id for name in (*weight.files, *weight.also)}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        new = self.ids - len(tensor)
        if name not in self.by_id or new <= 0:
            return tensor
        old = tensor.float()
        generator = torch.Generator().manual_seed(key(self.seed, "new ids", name) & (2**63 - 1))
        noise = torch.randn((new, *old.shape[1:]), generator=generator) * (old.std(0) * NOISE)
        return torch.cat([tensor, (old.mean(0) + noise).to(tensor.dtype)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)
