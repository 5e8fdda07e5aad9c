"""Layout: how ranks divide the work, and which rank holds what."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from pretrain.base.errors import UserError

if TYPE_CHECKING:  # a layout is settled before torch is imported
    from torch.distributed.device_mesh import DeviceMesh

    from pretrain.model.weights import Axis

SHARDED = ("vocab", "q", "kv", "o", "mlp", "expert_mlp", "shared_mlp")  # axes that tensor parallelism divides
NAMES = ("replicate", "shard", "tp")  # of the mesh, the slowest link first


@dataclass(frozen=True)
class Layout:
    """Sizes: copies of the model, pieces that a copy lies in between steps (FSDP), ranks that share each matrix."""

    replicate: int = 1
    shard: int = 1
    tp: int = 1

    @property
    def ranks(self) -> int:
        """Ranks in all."""
        return prod(getattr(self, name) for name in NAMES)

    @property
    def data(self) -> int:
        """Ranks, or groups of them, that read rows of their own."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        return " · ".join(f"{name} {getattr(self, name)}" for name in NAMES)

    def mesh(self, device: str) -> "DeviceMesh":
        """The ranks as a grid; neighbours in it share matrices. The process group is there already."""
        from torch.distributed.device_mesh import init_device_mesh  # half a second that one rank does not need

        return init_device_mesh(device, tuple(getattr(self, name) for name in NAMES), mesh_dim_names=NAMES)


def settle(ranks: int, replicate: int = 1, shard: int | None = None, tp: int = 1) -> Layout:
    """The layout of so many ranks; `shard` takes those that are left, if not said. Raises UserError with the sums."""
    others = replicate * tp
    if ranks % others:
        fit = [n for n in divisors(ranks) if n % replicate == 0]
        near = min((n // replicate for n in fit), key=lambda n: abs(n - tp), default=0)
        what = f"replicate {replicate} · tp {tp} = {others} does not divide {ranks} ranks"
        expected = f"tp {near} (replicate {replicate} · shard {ranks // replicate // near} · tp {near})" if near else ""
        raise UserError(f"parallel: {what}", expected=expected or f"a divisor of {ranks}")
    rest = ranks // others
    if shard not in (None, rest):
        what = f"replicate {replicate} · shard {shard} · tp {tp} = {others * shard}, and the number of ranks is {ranks}"
        raise UserError(f"parallel: {what}", expected=f"shard = {rest}, or none said")
    return Layout(replicate, rest, tp)


def refuse(layout: Layout, axes: "Mapping[str, Axis]", *, rows: int, sequence: int) -> None:
    """Raises UserError where a model or a batch cannot be divided so, with the arithmetic and what would do."""
    for name in SHARDED:
        count, _ = axes.get(name, (0, 0))
        if count % layout.tp:
            fit = [n for n in divisors(count) if all(axes.get(a, (0, 0))[0] % n == 0 for a in SHARDED)]
            what = f"parallel.tp = {layout.tp} does not divide the {count} of axis {name!r}"
            raise UserError(what, expected=" or ".join(map(str, fit[:8])))
    if sequence % layout.tp:
        raise UserError(f"parallel.tp = {layout.tp} does not divide a sequence of {sequence} tokens")
    if rows % layout.data:
        near = max((n for n in divisors(rows) if n <= layout.data), default=1)
        what = f"replicate {layout.replicate} · shard {layout.shard} = {layout.data} data ranks do not divide a batch"
        raise UserError(f"parallel: {what} of {rows} rows", expected=f"{near} of them, or another train.batch")


def divisors(number: int) -> list[int]:
    """Ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]
