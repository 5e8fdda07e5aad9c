"""A model to use: from a run directory, a checkpoint, or a released folder, ours or another's."""

import json
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.base.files import verify
from pretrain.base.remote import Place, place
from pretrain.checkpoint.pieces import Saved
from pretrain.checkpoint.save import RECIPE, STATE, newest
from pretrain.events.directory import RunDirectory
from pretrain.model.config import CONFIG, IS_CAUSAL, read_config
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import Weight, expand, held
from pretrain.order.order import History
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe
from pretrain.recipe.schema import Leaf
from pretrain.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was verified, and the run that it is of."""

    path: Place
    run: RunDirectory
    recipe: Recipe
    family: ModuleType
    config: Any

    @property
    def rows(self) -> list[Weight]:
        """The table of its weights."""
        return self.family.weights(self.config)

    @cached_property
    def state(self) -> dict[str, Any]:
        """Step, position and history."""
        return json.loads((self.path / STATE).read_bytes())

    @property
    def learned(self) -> int:
        """Rows that its weights have learned from."""
        return History.from_json(self.state["history"]).learned(self.state["position"])

    @cached_property
    def saved(self) -> Saved:
        """Its weights, with those of an objective's own modules, which no family has."""
        return Saved(self.path, "model")

    def weight(self, name: str) -> Tensor:
        """A weight by our name, read when asked for."""
        return self.saved.whole(name)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run. Raises UserError for a checkpoint that was taken out of its run."""
        if not self.run.stages.is_file():
            raise UserError("no run around this checkpoint", where=str(self.path), expected="it in its run directory")
        return Tokenizer.load(self.run.store / json.loads(self.run.stages.read_bytes())["folders"]["tokenizer"])

    def model(self) -> nn.Module:
        """The module with its weights."""
        module = make(self.family, self.config)
        for weight in expand(self.rows):
            if weight.tied is None:
                held(module, weight.name).data.copy_(self.weight(weight.name))
        return module


def objective_of(path: Path | str) -> tuple[Leaf | None, bool]:
    """The objective that a model learned by, where its recipe is beside it, and whether it is causal."""
    folder = Path(path).absolute()
    run = RunDirectory(folder)
    for recipe in (folder / RECIPE, run.recipe):
        if recipe.is_file():
            leaf = load(str(recipe)).train.objective
            return leaf, leaf.bind().causal
    config = folder / CONFIG
    if not config.is_file():
        return None, True
    family, _ = read_config(folder)
    return None, getattr(family, "CAUSAL", True) and json.loads(config.read_bytes()).get(IS_CAUSAL, True)


def checkpoint_of(path: Path | str, expected: str = "a run directory or a checkpoint") -> Checkpoint:
    """The checkpoint at a path, or the newest whole one of a run. Raises UserError where there is none."""
    folder = Path(path).absolute()
    run = RunDirectory(folder)
    if run.stages.is_file():
        found, _ = newest(checkpoints_of(run, load(str(run.recipe))))
        if found is None:
            raise UserError("no checkpoint yet", where=str(folder), expected="a run that has saved one")
    elif (folder / RECIPE).is_file() and (folder / STATE).is_file():
        verify(folder)
        found, run = folder, RunDirectory(folder.parent.parent)
    else:
        raise UserError("no model here" if folder.exists() else "no such folder", where=str(path), expected=expected)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / RECIPE
        copy.write_bytes((found / RECIPE).read_bytes())
        recipe = load(str(copy))
    leaf = recipe.model.family
    return Checkpoint(found, run, recipe, find(leaf.kind, leaf.use), leaf.bind())


def checkpoints_of(run: RunDirectory, recipe: Recipe) -> Place:
    """Where a run's checkpoints lie."""
    said = recipe.run.checkpoints
    return run.checkpoints if said is None else place(said) / run.path.name


def open_model(path: Path | str) -> tuple[nn.Module, ModuleType, Any, Tokenizer]:
    """(module, family, Config, tokenizer). Raises UserError for a path that is none of these."""
    folder = Path(path).absolute()
    for released in (folder, RunDirectory(folder).release):
        if (released / CONFIG).is_file():
            return (*load_folder(released), Tokenizer.load(released))
    found = checkpoint_of(path, "a run directory, a checkpoint or a released folder")
    return found.model(), found.family, found.config, found.tokenizer()
