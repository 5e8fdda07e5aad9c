"""A checkpoint, or the mean of several, as a released folder: streamed, with card and lineage, proved where asked."""

import dataclasses
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from pretrain.base.errors import UserError
from pretrain.events.kinds import Released
from pretrain.model.folder import load_folder, make
from pretrain.model.tensor_files import SHARD_BYTES
from pretrain.model.weights import expand, held
from pretrain.release.bring import proof_tokens
from pretrain.release.card import card
from pretrain.release.lineage import Lineage
from pretrain.release.release import agree, release
from pretrain.run.facts import facts_of, lineage_of
from pretrain.run.open import Checkpoint, checkpoint_of


def export(
    paths: Sequence[Path | str],
    to: Path | str | None = None,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    proved: bool = False,
) -> Released:
    """Writes a checkpoint (of a run: its newest), or the mean of several, to `to`, by default a folder in its run.

    The dtype is the recipe's if none is said. Returns the difference of logits as 0 where it was not `proved`. Raises
    UserError where the checkpoints are of different models.
    """
    found = [checkpoint_of(path) for path in paths]
    first, tokenizer = found[0], found[0].tokenizer()
    for other in found[1:]:
        _demand_same(first, other)
    dtype = dtype or first.recipe.release.dtype
    name = first.path.name if len(found) == 1 else f"mean-of-{len(found)}-to-{first.path.name}"
    folder = Path(to) if to is not None else first.run.exports / f"{name}-{dtype}"
    family, config, rows = first.family, first.config, first.rows
    causal = first.recipe.train.objective.bind().causal
    ours = first.weight if len(found) == 1 else mean_of(found)
    lineages = [lineage_of(one.run, one.recipe, one.state["step"], one.learned) for one in found]
    mean: Lineage = {"made": "averaged", "pretrain": version("pretrain"), "of": lineages}
    facts = facts_of(first.run, first.recipe, family, config, lineages[0], causal=causal)
    if len(found) > 1:
        facts = dataclasses.replace(facts, scores=[], lineage=mean)  # nobody has scored the mean

    def proof(partial: Path) -> float:
        model, (back, _, _) = make(family, config), load_folder(partial)
        for weight in (weight for weight in expand(rows) if weight.tied is None):
            held(model, weight.name).data.copy_(ours(weight.name))
        return agree(model, back, proof_tokens(config), dtype, partial, causal=causal)

    return release(
        folder, family, config, ours, tokenizer, dtype=dtype, shard_bytes=shard_bytes, card=card(facts),
        lineage=facts.lineage, causal=causal, prove=proof if proved else None,
    )  # fmt: skip


def mean_of(found: Sequence[Checkpoint]) -> Callable[[str], Tensor]:
    """Weights by our name, each the mean over checkpoints, summed in float64 and rounded once: model averaging
    (Polyak and Juditsky 1992; of checkpoints: Izmailov et al. 2018, arXiv 1803.05407)."""

    def mean(name: str) -> Tensor:
        start = found[0].weight(name)
        total = start.double()
        for one in found[1:]:
            total += one.weight(name)
        return (total / len(found)).to(start.dtype)

    return mean


def _demand_same(one: Checkpoint, other: Checkpoint) -> None:
    """Raises UserError with what differs in two models."""
    where, expected = str(other.path), f"the model of {one.path}"
    if one.family is not other.family:
        raise UserError(f"a {other.family.ARCHITECTURE}", where=where, expected=expected)
    mine, theirs = vars(one.config), vars(other.config)
    words = [f"{name} {theirs[name]}, not {mine[name]}" for name in mine if mine[name] != theirs[name]]
    if words:
        raise UserError("; ".join(words), where=where, expected=expected)
    if one.tokenizer().digest != other.tokenizer().digest:
        raise UserError("its run has another tokenizer", where=where, expected=f"that of {one.path}")
