"""Checkpoints: written aside, synced, renamed, read back, and only then the newest."""

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import new_folder, partial_of, verify, write
from pretrain.checkpoint.pieces import Part, Saved, save_parts
from pretrain.checkpoint.state import State
from pretrain.model.weights import Weight, expand, held, local
from pretrain.order.order import ORDER_VERSION, History
from pretrain.parallel.pieces import whole

WEIGHTS, OPTIMIZER, STATE, RECIPE, LATEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "recipe.toml",
    "latest",
)
ASIDE = "damaged-"


def save(state: State, folder: Path, recipe_toml: str) -> Path:
    """Writes `folder/step-00000100`, verifies it, then points `folder/latest` to it. Raises DiskFullError.

    All ranks call it; each writes what no other does, the leading one the rest.
    """
    path, ranks = path_of(folder, state.step), state.ranks
    with new_folder(path) if ranks.leads else nullcontext(partial_of(path)) as partial:
        ranks.wait()
        if ranks.alone:
            save_file(_weights(state), partial / WEIGHTS)
            save_file({name: own.contiguous() for name, own in state.optimizer.state().items()}, partial / OPTIMIZER)
        else:
            _save_parts(state, partial)
        if ranks.leads:
            table = {
                "step": state.step,
                "position": state.position,
                "order_version": ORDER_VERSION,
                "history": state.history.to_json(),
                "recent": state.recent,
            }
            write(partial / STATE, json.dumps(table, indent=1))
            write(partial / RECIPE, recipe_toml)
        ranks.wait()
    if ranks.leads:
        verify(path)
        write(folder / LATEST, path.name + "\n")
    ranks.wait()
    return path


def _weights(state: State) -> dict[str, Tensor]:
    names = [weight.name for weight in expand(state.rows) if weight.tied is None]
    return {name: held(state.model, name).detach().contiguous() for name in names}


def _save_parts(state: State, folder: Path) -> None:
    ranks, weights = state.ranks, _by_name(state)
    for kind, tensors in (("model", _weights(state)), ("optimizer", state.optimizer.state())):
        parts: dict[str, Part] = {}
        for name, tensor in tensors.items():
            weight = _weight_of(weights, name)
            if weight is None and ranks.leads:
                parts[name] = tuple(tensor.shape), [whole(tensor.shape)], tensor
            elif weight is not None and ranks.first_of(weight):
                parts[name] = weight.shape(state.axes), ranks.boxes(weight, state.axes), local(tensor)
        save_parts(parts, folder, kind, ranks.number)


def _by_name(state: State) -> dict[str, Weight]:
    return {weight.name: weight for weight in expand(state.rows)}


def _weight_of(weights: Mapping[str, Weight], name: str) -> Weight | None:
    """The weight of that name, or that an optimizer's "moment.weight" is of."""
    return weights.get(name) or weights.get(name.partition(".")[2])


def newest(folder: Path) -> tuple[Path | None, dict[Path, DamagedError]]:
    """The newest checkpoint that is whole, and what is wrong with each of those after it."""
    damaged: dict[Path, DamagedError] = {}
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(path)
            return path, damaged
        except DamagedError as error:
            damaged[path] = error
    return None, damaged


def path_of(folder: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return folder / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(path.name.rpartition("-")[2])


def set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint, so that it neither counts as one nor stands where a new one will."""
    aside = path.with_name(f"{ASIDE}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def load(path: Path, state: State) -> None:
    """Fills a state from a checkpoint that was verified. Raises UserError for another order's version."""
    table = json.loads((path / STATE).read_bytes())
    if table["order_version"] != ORDER_VERSION:
        what = f"a checkpoint of order version {table['order_version']}"
        raise UserError(what, where=str(path), expected=f"version {ORDER_VERSION}, or the pretrain that wrote it")
    saved, weights = Saved(path, "model"), _by_name(state)
    for name, parameter in _weights(state).items():
        _fill(state, weights[name], parameter, saved, name)
    every, saved, moments = saved.names(), Saved(path, "optimizer"), dict[str, Tensor]()
    for name in saved.names():
        weight = _weight_of(weights, name)
        if weight is None and name.partition(".")[2] in every:
            continue  # of a weight that another stage has
        moments[name] = saved.whole(name) if weight is None else torch.zeros_like(held(state.model, weight.name))
        if weight is not None:
            _fill(state, weight, moments[name], saved, name)
    state.optimizer.load(moments)
    state.step, state.position = table["step"], table["position"]
    state.history = History.from_json(table["history"])
    state.recent = [(loss, norm) for loss, norm in table.get("recent", ())]


def _fill(state: State, weight: Weight, tensor: Tensor, saved: Saved, name: str) -> None:
    boxes = [whole(tensor.shape)] if state.ranks.alone else state.ranks.boxes(weight, state.axes)
    with torch.no_grad():
        for box in boxes:
            box.of_own(local(tensor)).copy_(saved.read(name, box))


def prune(folder: Path, keep: int) -> list[Path]:
    """Removes all but the newest `keep` checkpoints, and those set aside, once there is a whole one after all.

    Returns what was removed.
    """
    old = [*sorted(folder.glob("step-*"))[:-keep], *folder.glob(f"{ASIDE}step-*")]
    for path in old:
        shutil.rmtree(path)
    return old
