"""What a run directory says of one of its checkpoints: the facts of its card, and its lineage."""

import json
from types import ModuleType
from typing import Any

from pretrain.corpus.cut import Cut
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Score
from pretrain.events.read import steps
from pretrain.model.weights import parameters
from pretrain.recipe.recipe import Recipe
from pretrain.release.card import Facts
from pretrain.release.lineage import Lineage
from pretrain.train import machine


def lineage_of(run: RunDirectory, recipe: Recipe, step: int, rows: int) -> Lineage:
    """What the weights after a step are made of, which have learned from so many rows."""
    stages = json.loads(run.stages.read_bytes())
    begun = stages["train"]
    return {
        "made": "trained",
        "pretrain": json.loads(run.versions.read_bytes())["pretrain"],
        "recipe": recipe.digest,
        "corpus": begun["key"]["tokens"],
        "tokenizer": begun["key"]["tokenizer"],
        "steps": step,
        "tokens": rows * (recipe.tokens.row or recipe.train.sequence),
        "from": begun.get("from"),
    }


def facts_of(
    run: RunDirectory, recipe: Recipe, family: ModuleType, config: Any, lineage: Lineage, *, causal: bool
) -> Facts:
    """What the card says of a checkpoint; scores are those of its own step, and of baselines."""
    stages = json.loads(run.stages.read_bytes())
    cut = run.store / stages["folders"]["corpus"]
    taken = [one for one in steps(run) if one.step <= lineage["steps"]]
    starts = [0, *(one.step for one in taken[:-1])]
    scores = [Score(**score) for score in stages.get("evaluate", {}).get("scores", [])]
    ours = any(score.step == lineage["steps"] for score in scores)
    return Facts(
        name=recipe.run.name,
        description=recipe.release.description,
        license=recipe.release.license,
        architecture=family.ARCHITECTURE,
        published=not family.MODEL_TYPE.startswith("pretrain_"),
        objective=recipe.train.objective.use,
        causal=causal,
        parameters=parameters(family.weights(config), config.axes()),
        sequence=recipe.train.sequence,
        seconds=sum((one.step - before) * one.step_seconds for one, before in zip(taken, starts, strict=True)),
        machine=machine.describe(),
        summary=Cut(cut).summary if cut.is_dir() else {},
        licenses={source.name: source.license for source in recipe.corpus.sources},
        scores=scores if ours else [],
        lineage=lineage,
    )
