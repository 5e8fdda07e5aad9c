"""A model to use: from a run directory, a checkpoint, or a released folder, ours or another's."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.base.files import verify
from pretrain.checkpoint.pieces import Saved
from pretrain.checkpoint.save import RECIPE, STATE, newest
from pretrain.events.directory import RunDirectory
from pretrain.model.config import CONFIG, IS_CAUSAL, read_config
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import expand, held
from pretrain.recipe.read import load
from pretrain.recipe.schema import Leaf
from pretrain.tokenizer.tokenizer import Tokenizer


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


def open_model(path: Path | str) -> tuple[nn.Module, ModuleType, Any, Tokenizer]:
    """(module, family, Config, tokenizer). Raises UserError for a path that is none of these."""
    folder = Path(path).absolute()
    if (folder / "config.json").is_file():
        return (*load_folder(folder), Tokenizer.load(folder))
    run = RunDirectory(folder)
    if run.stages.is_file():
        if (run.release / "config.json").is_file():
            return (*load_folder(run.release), Tokenizer.load(run.release))
        found, _ = newest(run.checkpoints)
        if found is None:
            raise UserError("no checkpoint yet", where=str(folder), expected="a run that has saved one")
        folder = found
    if (folder / RECIPE).is_file() and (folder / STATE).is_file():
        verify(folder)
        recipe = load(str(folder / RECIPE))
        family = find(recipe.model.family.kind, recipe.model.family.use)
        config = recipe.model.family.bind()
        module = make(family, config)
        saved = Saved(folder, "model")  # with those of an objective's own modules, which no family has
        for weight in expand(family.weights(config)):
            if weight.tied is None:
                held(module, weight.name).data.copy_(saved.whole(weight.name))
        run = RunDirectory(folder.parent.parent)
        name = json.loads(run.stages.read_bytes())["folders"]["tokenizer"]
        return module, family, config, Tokenizer.load(run.store / name)
    what = "no model here" if folder.exists() else "no such folder"
    raise UserError(what, where=str(path), expected="a run directory, a checkpoint or a released folder")
