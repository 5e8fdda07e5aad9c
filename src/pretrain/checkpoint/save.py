"""Checkpoints: written aside, synced, renamed, read back, and only then the newest."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import new_folder, verify, write
from pretrain.checkpoint.state import State
from pretrain.model.weights import expand, held
from pretrain.order.order import ORDER_VERSION, History

WEIGHTS, OPTIMIZER, STATE, RECIPE, LATEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "recipe.toml",
    "latest",
)
ASIDE = "damaged-"


def save(state: State, folder: Path, recipe_toml: str) -> Path:
    """Writes `folder/step-00000100`, verifies it, then points `folder/latest` to it. Raises DiskFullError."""
    path = folder / f"step-{state.step:08d}"
    with new_folder(path) as partial:
        save_file(_weights(state), partial / WEIGHTS)
        save_file({name: tensor.contiguous() for name, tensor in state.optimizer.state().items()}, partial / OPTIMIZER)
        table = {
            "step": state.step,
            "position": state.position,
            "order_version": ORDER_VERSION,
            "history": state.history.to_json(),
        }
        write(partial / STATE, json.dumps(table, indent=1))
        write(partial / RECIPE, recipe_toml)
    verify(path)
    write(folder / LATEST, path.name + "\n")
    return path


def _weights(state: State) -> dict[str, Tensor]:
    names = [weight.name for weight in expand(state.rows) if weight.tied is None]
    return {name: held(state.model, name).detach().contiguous() for name in names}


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
    tensors = load_file(path / WEIGHTS)
    for name, parameter in _weights(state).items():
        parameter.copy_(tensors[name])
    state.optimizer.load(load_file(path / OPTIMIZER))
    state.step, state.position = table["step"], table["position"]
    state.history = History.from_json(table["history"])


def prune(folder: Path, keep: int) -> list[Path]:
    """Removes all but the newest `keep` checkpoints, and those set aside, once there is a whole one after all.

    Returns what was removed.
    """
    old = [*sorted(folder.glob("step-*"))[:-keep], *folder.glob(f"{ASIDE}step-*")]
    for path in old:
        shutil.rmtree(path)
    return old
