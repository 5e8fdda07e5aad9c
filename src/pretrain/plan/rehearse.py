"""A step of a run on one of thousands of ranks, in one process: the code that trains, on tensors without numbers."""

import time
import warnings
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.base.errors import UserError
from pretrain.checkpoint.state import State
from pretrain.model.ahead import add_ahead
from pretrain.model.folder import materialise, shell
from pretrain.model.layers.experts import Experts
from pretrain.model.weights import expand, held, local
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks
from pretrain.parallel.expert import Dispatch, even
from pretrain.parallel.launch import pretended
from pretrain.parallel.layout import Layout
from pretrain.parallel.schedule import waiting
from pretrain.precision.policy import Policy
from pretrain.recipe.train import Train
from pretrain.train.recompute import recompute
from pretrain.train.step import Steps, train_step

KINDS = {  # an operation, and which of its arguments is as large as what all ranks of the group hold or hear
    "_allgather_base_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "allreduce_": ("all-reduce", 0),
    "alltoall_base_": ("all-to-all", 1),
    "broadcast_": ("broadcast", 0),
    "send": ("send", 0),
    "recv_": ("receive", 0),
}


class Said(NamedTuple):
    """Messages of one kind: how many, and bytes of the whole tensors."""

    number: int
    bytes: int


@dataclass(frozen=True)
class Rehearsal:
    """What one rank of a layout holds, says and takes for a step."""

    layout: Layout
    rank: int
    numbers: int  # of weights that this rank holds
    weight_bytes: int
    optimizer_bytes: int
    peak_bytes: int  # of all tensors together, at the worst moment before the optimizer's first step
    messages: Mapping[tuple[str, str], Said]  # by kind and by the size of the layout that they go along
    seconds: float  # of this process


def rehearse(
    family: ModuleType, config: Any, section: Train, layout: Layout, *, rank: int, policy: Policy, micro_batch: int
) -> Rehearsal:
    """Builds a rank's part of the model and takes a step with a rank's share of the batch. Raises UserError."""
    start, axes = time.process_time(), config.axes()
    if "expert" in axes and policy.compute is torch.float32:
        what = "experts in fp32: torch knows no shape of their grouped product without numbers"
        raise UserError(what, expected='train.precision = "bf16"')
    with pretended(layout.ranks, rank), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a view that nobody writes to
        ranks = Ranks.of(layout, "cpu")
        model, rows, objective = shell(family, config), family.weights(config), section.objective.bind()
        rows = [*rows, *add_ahead(model, rows, objective.ahead)]
        rows = ranks.apply(model, rows, axes, policy.gathered)
        for module in model.modules():
            if isinstance(module, Experts) and module.dispatch is not None:
                module.dispatch = Dispatch(ranks.group("ep"), even)
        samples = section.batch // section.sequence // layout.data
        kept = waiting(ranks.place("pp"), layout.pp, -(-samples // micro_batch), layout.chunks) / layout.chunks
        recompute(model, section.recompute, (section.activation_bytes or 0) / kept)
        batch, joins = _batch(samples, section.sequence), np.zeros((2, config.vocab_size), bool)
        vocabulary = Vocabulary(config.vocab_size, end=0, mask=0, fim=(0, 0, 0), joins=joins)
        watch = Watch(ranks, float(np.mean(objective.prepare(batch, vocabulary).targets != IGNORE)))
        with FakeTensorMode(allow_non_fake_inputs=True), watch:
            materialise(model, rows, "cpu")
            optimizer = section.optimizer.bind().build(model, rows, ranks.wholly(rows, axes))
            history = History((Segment(0, {"none": 1.0}, {}),))
            state = State(model, rows, optimizer, 0, 0, history, axes, ranks)
            steps = Steps(
                objective=objective, vocabulary=vocabulary, policy=policy, documents=False,
                clip=section.clip, z_loss=section.z_loss, micro_batch=micro_batch, forward=model,
                ranks=ranks, balance=section.balance,
            )  # fmt: skip
            train_step(state, batch, steps, 1.0)
            weights = [local(held(model, weight.name)) for weight in expand(rows) if weight.tied is None]
            return Rehearsal(
                layout, rank, sum(map(torch.numel, weights)), _bytes(weights),
                _bytes([local(one) for one in optimizer.state().values()]), watch.peak, watch.messages(),
                time.process_time() - start,
            )  # fmt: skip


class Watch(TorchDispatchMode):
    """Counts messages and live bytes; a tensor without numbers that is asked for one says 1, and that it holds where
    targets are, of which a share counts."""

    def __init__(self, ranks: Ranks, counted: float) -> None:
        super().__init__()
        self.counted = counted
        views = [(mesh, name) for mesh in ranks.meshes for name in mesh.mesh_dim_names or ()]
        views.sort(key=lambda view: view[1] != "fold")  # what holds all ranks has one group by several names
        self.names: dict[str, str] = {}
        for mesh, name in views:
            self.names.setdefault(mesh.get_group(name).group_name, name)
        self.said: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if operation is torch.ops.aten._local_scalar_dense.default:
            return False if given[0].dtype is torch.bool else 1.0 if given[0].is_floating_point() else 1
        if operation is torch.ops.aten.index.Tensor:
            given = given[0], [number for one in given[1] for number in self._where(one)]
        name = operation.__name__.partition(".")[0]
        if operation.namespace == "c10d" and name in KINDS:
            self._hear(name, given)
            self._recount()
        out = operation(*given, **(named or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, Tensor):
                self._keep(local(tensor))
        return out

    def _where(self, index: Tensor | None) -> list[Tensor | None]:
        if index is None or index.dtype is not torch.bool:
            return [index]
        return [index.new_empty(round(index.numel() * self.counted), dtype=torch.int64) for _ in range(index.ndim)]

    def messages(self) -> dict[tuple[str, str], Said]:
        """What was said so far."""
        return {key: Said(len(sizes), sum(sizes)) for key, sizes in sorted(self.said.items())}

    def _hear(self, name: str, given: Sequence[Any]) -> None:
        kind, place = KINDS[name]
        group = next(
            dist.ProcessGroup.unbox(one).group_name for one in given if isinstance(one, torch.ScriptObject)
            if "ProcessGroup" in str(one._type())
        )  # fmt: skip
        self.said[kind, self.names.get(group, "all")].append(_bytes(_tensors(given[place])))

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        number = id(storage)
        if number not in self.live:
            self.live[number] = weakref.ref(storage, lambda _: self._drop(number)), storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _drop(self, number: int) -> None:
        self.now -= self.live.pop(number)[1]

    def _recount(self) -> None:
        """FSDP gives and takes the memory of tensors that stay."""
        for number, (seen, _) in list(self.live.items()):
            if (storage := seen()) is not None:
                self.live[number] = seen, storage.nbytes()
        self.now = sum(size for _, size in self.live.values())
        self.peak = max(self.peak, self.now)


def _tensors(given: Any) -> list[Tensor]:
    return [given] if isinstance(given, Tensor) else [one for part in given for one in _tensors(part)]


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _batch(samples: int, sequence: int) -> Batch:
    ones = np.ones((samples, sequence), np.int64)
    positions = np.broadcast_to(np.arange(sequence)[:, None], (samples, sequence, 1))
    return Batch(
        ones,
        ones,
        ones.astype(np.float32),
        ones.astype(np.int32),
        np.arange(samples),
        positions,
        sources=("",) * samples,
    )
