"""Checkpoints: every rank's part written aside, synced and read back; once all are there, the newest."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrain.base.errors import DamagedError, DiskFullError, UserError
from pretrain.base.files import MANIFEST, Entry, partial_of, publish, stream, verify, write, write_manifest
from pretrain.base.remote import Place, Remote, names, remove
from pretrain.checkpoint.pieces import Content, Part, Saved, part_files
from pretrain.checkpoint.state import State
from pretrain.model.weights import Axis, Weight, expand, held, local
from pretrain.order.order import ORDER_VERSION, History
from pretrain.parallel.apply import Ranks
from pretrain.parallel.pieces import whole

STATE, RECIPE, LATEST = "state.json", "recipe.toml", "latest"
ASIDE = "damaged-"
PART_SECONDS = 1800.0  # that the leading rank waits for the parts of others once its own is written
LOOK_SECONDS = 0.02, 1.0  # between two looks for them: at first, at most


@dataclass
class Snapshot:
    """What this rank writes of a state: files of tensors, and texts by name.

    Ranks agree over files, not over the network: each leaves a list of what it wrote, and the leading one, when all
    lists are there, makes the checkpoint count. So a thread can do it while training speaks, on any nodes that see one
    folder or object store, and a rank that is lost leaves no other waiting in a collective.
    """

    folder: Place
    step: int
    ranks: Ranks
    contents: list[Content]
    texts: dict[str, str]
    until: float = 0.0  # when parts of other ranks are waited for no more

    @classmethod
    def of(cls, state: State, folder: Place, recipe_toml: str) -> "Snapshot":
        """Of a state as it is now; its tensors are shared, not copied."""
        ranks, kinds = state.ranks, {"model": _weights(state), "optimizer": state.optimizer.state()}
        contents, texts = list[Content](), dict[str, str]()
        for kind, tensors in kinds.items():
            if ranks.alone:
                contents.append(Content.of(f"{kind}.safetensors", tensors))
            elif parts := _parts(state, tensors):
                content, texts[f"{kind}-{ranks.number:05d}.json"] = part_files(parts, kind, ranks.number)
                contents.append(content)
        if ranks.leads:
            table = {
                "step": state.step,
                "position": state.position,
                "order_version": ORDER_VERSION,
                "history": state.history.to_json(),
                "recent": state.recent,
                "layout": str(ranks.layout),
            }
            texts |= {STATE: json.dumps(table, indent=1), RECIPE: recipe_toml}
        return cls(folder, state.step, ranks, contents, texts)

    @property
    def path(self) -> Place:
        """The checkpoint that it will be."""
        return path_of(self.folder, self.step)

    @property
    def partial(self) -> Place:
        """Where it is written: aside, or, in an object store, where nothing counts before its manifest."""
        return self.path if isinstance(self.path, Remote) else partial_of(self.path)

    @property
    def bytes(self) -> int:
        """Of a buffer for this rank's tensors: each file begins at a multiple of any dtype's size."""
        return sum(-(-content.bytes // 8) * 8 for content in self.contents)

    def copied(self, buffer: Tensor) -> "Snapshot":
        """The same, of tensors that are copied to `buffer` [bytes]."""
        contents, at = [], 0
        for content in self.contents:
            contents.append(content.copied(buffer[at : at + content.bytes]))
            at += -(-content.bytes // 8) * 8
        return replace(self, contents=contents)

    def begin(self) -> None:
        """Clears the place; all ranks call it before one of them writes."""
        error: Exception | None = None
        try:
            if self.ranks.leads:
                remove(self.partial)  # what a killed process left
                if isinstance(self.partial, Path):
                    self.partial.mkdir(parents=True)
        except (OSError, UserError) as caught:
            error = caught
        if error := agreed(self.ranks, error):
            raise error

    def write(self) -> dict[str, Entry]:
        """Writes this rank's part, and as the leading one makes the checkpoint count. No collective is called. Raises
        DiskFullError, DamagedError, and UserError where another's part does not come, and leaves no part then. Returns
        what was written."""
        try:
            return self._write()
        except Exception:
            own = [*(content.name for content in self.contents), *self.texts]
            with suppress(OSError, UserError):
                for left in [self.partial] if self.ranks.leads else [self.partial / name for name in own]:
                    remove(left)
            raise

    def _write(self) -> dict[str, Entry]:
        entries = {one.name: stream(self.partial / one.name, one.chunks()) for one in self.contents}
        for name, text in self.texts.items():
            entries[name] = stream(self.partial / name, [memoryview(text.encode())])
        if not self.ranks.leads:
            write(self.partial / _done(self.ranks.number), json.dumps(entries))
            return entries
        for number, others in self._others().items():
            entries |= others
            remove(self.partial / _done(number))
        write_manifest(self.partial, entries)
        if isinstance(self.path, Path):
            publish(self.path)
        write(self.folder / LATEST, self.path.name + "\n")
        return entries

    def _others(self) -> dict[int, dict[str, Entry]]:
        """What the other ranks wrote, by number, once all have. Raises UserError."""
        found, missing = dict[int, dict[str, Entry]](), set(range(1, self.ranks.layout.ranks))
        pause, most = LOOK_SECONDS
        self.until = self.until or time.monotonic() + PART_SECONDS
        while missing:
            there = set(names(self.partial))
            for number in [one for one in sorted(missing) if _done(one) in there]:
                found[number] = json.loads((self.partial / _done(number)).read_bytes())
                missing.remove(number)
            if missing and time.monotonic() > self.until:
                who = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, sorted(missing)[:8]))}"
                what = f"the checkpoint of step {self.step} lacks what {who} should have written"
                raise UserError(what, where=str(self.folder), expected="a folder or store that all ranks write to")
            if missing:
                time.sleep(pause)
                pause = min(pause * 1.5, most)
        return found


def _done(number: int) -> str:
    return f"done-{number:05d}.json"


def agreed(ranks: Ranks, error: Exception | None) -> Exception | None:
    """What went wrong on a rank, told on all; all ranks call it."""
    who = ranks.most(0 if error is None else ranks.number + 1) - 1
    if who < 0:
        return None
    text = ranks.said(str(error) or repr(error), who)
    kind = DiskFullError if ranks.any(isinstance(error, DiskFullError)) else UserError
    return error or kind(f"rank {who}: {text}")


def save(state: State, folder: Place, recipe_toml: str) -> Place:
    """Writes `folder/step-00000100`, then points `folder/latest` to it, while all ranks wait. Raises DiskFullError."""
    snapshot = Snapshot.of(state, folder, recipe_toml)
    snapshot.begin()
    error: Exception | None = None
    try:
        snapshot.write()
    except (OSError, UserError) as caught:
        error = caught
    if error := agreed(state.ranks, error):
        raise error
    return snapshot.path


def _weights(state: State) -> dict[str, Tensor]:
    names = [weight.name for weight in expand(state.rows) if weight.tied is None]
    return {name: held(state.model, name) for name in names}


def _parts(state: State, tensors: Mapping[str, Tensor]) -> dict[str, Part]:
    """Those of these tensors that this rank writes."""
    ranks, weights, parts = state.ranks, _by_name(state), dict[str, Part]()
    for name, tensor in tensors.items():
        weight = _weight_of(weights, name)
        if weight is None and ranks.leads:
            parts[name] = tuple(tensor.shape), [whole(tensor.shape)], tensor
        elif weight is not None and ranks.first_of(weight):
            parts[name] = weight.shape(state.axes), ranks.boxes(weight, state.axes), local(tensor)
    return parts


def _by_name(state: State) -> dict[str, Weight]:
    return {weight.name: weight for weight in expand(state.rows)}


def _weight_of(weights: Mapping[str, Weight], name: str) -> Weight | None:
    """The weight of that name, or that an optimizer's "moment.weight" is of."""
    return weights.get(name) or weights.get(name.partition(".")[2])


def newest(folder: Place, ranks: Ranks | None = None) -> tuple[Place | None, dict[Place, DamagedError]]:
    """The newest checkpoint that is whole, and what is wrong with each of those after it. Several ranks, which all call
    it, each read a share of a checkpoint's files back, and find the same."""
    ranks = ranks or Ranks()
    damaged: dict[Place, DamagedError] = {}
    left = every(folder)[::-1] if ranks.leads else []
    while (step := ranks.agree(step_of(left[0]) if left else -1)) >= 0:
        path, error = path_of(folder, step), None
        try:
            verify(path, share=(ranks.number, ranks.layout.ranks))
        except DamagedError as caught:
            error = caught
        found = agreed(ranks, error)
        if found is None:
            return path, damaged
        damaged[path] = found if isinstance(found, DamagedError) else DamagedError(str(found))
        left = left[1:]
    return None, damaged


def every(folder: Place) -> list[Place]:
    """All, the oldest first; in an object store one counts once its manifest is there."""
    steps = [folder / name for name in names(folder) if name.startswith("step-")]
    return [path for path in steps if isinstance(path, Path) or (path / MANIFEST).is_file()]


def make_room(folder: Place) -> bool:
    """Whether older checkpoints could be removed for a new one, because the newest is whole."""
    found, damaged = newest(folder)
    return found is not None and not damaged and bool(prune(folder, 1))


def path_of(folder: Place, step: int) -> Place:
    """The checkpoint of a step."""
    return folder / f"step-{step:08d}"


def step_of(path: Place) -> int:
    """The step that a checkpoint's name says."""
    return int(path.name.rpartition("-")[2])


def set_aside(path: Place) -> Place:
    """Renames a damaged checkpoint, so that it neither counts as one nor stands where a new one will; in an object
    store its manifest."""
    if isinstance(path, Path):
        aside = path.with_name(f"{ASIDE}{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        return path.rename(aside)
    write(path / f"{ASIDE}{MANIFEST}", (path / MANIFEST).read_bytes())
    (path / MANIFEST).remove()
    return path / f"{ASIDE}{MANIFEST}"


def layout_of(path: Place) -> str:
    """The layout that a checkpoint was written on, "" where it does not say."""
    return str(json.loads((path / STATE).read_bytes()).get("layout", ""))


def load(path: Place, state: State) -> None:
    """Fills a state from a checkpoint that was verified. Raises UserError for another order's version."""
    table = json.loads((path / STATE).read_bytes())
    if table["order_version"] != ORDER_VERSION:
        what = f"a checkpoint of order version {table['order_version']}"
        raise UserError(what, where=str(path), expected=f"version {ORDER_VERSION}, or the pretrain that wrote it")
    fill(path, state.model, state.rows, state.axes, state.ranks)
    every, weights = Saved(path, "model").names(), _by_name(state)
    saved, moments = Saved(path, "optimizer"), dict[str, Tensor]()
    for name in saved.names():
        weight = _weight_of(weights, name)
        if weight is None and name.partition(".")[2] in every:
            continue  # of a weight that another stage has
        if weight is None:
            moments[name] = saved.whole(name)
        else:
            moments[name] = torch.zeros_like(held(state.model, weight.name), dtype=saved.dtype(name))
            _fill(moments[name], weight, state.axes, state.ranks, saved, name)
    state.optimizer.load(moments)
    state.step, state.position = table["step"], table["position"]
    state.history = History.from_json(table["history"])
    state.recent = [(loss, norm) for loss, norm in table.get("recent", [])]


def fill(path: Place, model: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], ranks: Ranks) -> None:
    """Fills the weights that this rank holds from a checkpoint that was verified, and nothing else."""
    saved = Saved(path, "model")
    for weight in (weight for weight in expand(rows) if weight.tied is None):
        _fill(held(model, weight.name), weight, axes, ranks, saved, weight.name)


def _fill(tensor: Tensor, weight: Weight, axes: Mapping[str, Axis], ranks: Ranks, saved: Saved, name: str) -> None:
    with torch.no_grad():
        for box in [whole(tensor.shape)] if ranks.alone else ranks.boxes(weight, axes):
            box.of_own(local(tensor)).copy_(saved.read(name, box))


def prune(folder: Place, keep: int) -> list[Place]:
    """Removes all but the newest `keep` checkpoints, those set aside, once there is a whole one after all, and what
    killed processes left. Returns what was removed."""
    kept = {path.name for path in every(folder)[-keep:]}
    old = [folder / name for name in names(folder) if "step-" in name and name not in kept]
    for path in old:
        remove(path)
    return [path for path in old if not path.name.startswith(".")]
