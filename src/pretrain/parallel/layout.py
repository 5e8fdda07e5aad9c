"""Layout: how ranks divide the work, and which rank holds what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, lcm, prod
from typing import TYPE_CHECKING

from pretrain.base.errors import UserError

if TYPE_CHECKING:  # a layout is settled before torch is imported
    from torch.distributed.device_mesh import DeviceMesh

    from pretrain.model.weights import Axis
    from pretrain.recipe.parallel import Parallel

# Axes that tensor parallelism divides.
SHARDED = ("vocab", "q", "kv", "heads", "o", "mlp", "expert_mlp", "expert_pair", "shared_mlp")
COUNTED = {"q": "attention heads", "kv": "heads of keys and values", "vocab": "ids of the vocabulary"}
SIZES = ("pp", "replicate", "shard", "cp", "tp")  # whose product is the number of ranks, the slowest link first
# Three views of the same ranks in the same order. A copy of the model lies, between steps, on the ranks of shard and of
# cp alike: its `fold`. Experts are divided among ep of these, and each ep-th lies on the rest of them, `expert_shard`.
VIEWS = (SIZES, ("pp", "replicate", "fold", "tp"), ("pp", "replicate", "expert_shard", "ep", "tp"))


@dataclass(frozen=True)
class Layout:
    """Sizes: stages of the stack, copies of the model, pieces that a copy lies in between steps (FSDP), parts of a
    sequence, ranks that share each matrix; and ranks, of those of shard and cp, that share the experts."""

    replicate: int = 1
    shard: int = 1
    tp: int = 1
    cp: int = 1
    pp: int = 1
    ep: int = 1
    chunks: int = 1  # of the stack, that a stage of pp has

    @property
    def ranks(self) -> int:
        """Ranks in all."""
        return prod(getattr(self, name) for name in SIZES)

    @property
    def data(self) -> int:
        """Ranks, or groups of them, that read rows of their own."""
        return self.replicate * self.shard

    @property
    def fold(self) -> int:
        """Ranks that a stage of one copy lies on between steps, for each of tp."""
        return self.shard * self.cp

    @property
    def expert_shard(self) -> int:
        """Ranks that each of ep's experts lie on between steps, for each of tp."""
        return self.fold // self.ep

    def __str__(self) -> str:
        """The sizes that matter: those of data and tp, and others above 1."""
        usual = ("replicate", "shard", "tp")
        return " · ".join(
            f"{name} {getattr(self, name)}"
            for name in ("pp", "chunks", "replicate", "shard", "cp", "tp", "ep")
            if name in usual or getattr(self, name) > 1
        )

    def meshes(self, device: str) -> "Sequence[DeviceMesh]":
        """The ranks as grids, one for each of VIEWS; neighbours share matrices. The process group is there already."""
        from torch.distributed.device_mesh import init_device_mesh  # half a second that one rank does not need

        sizes = [tuple(getattr(self, name) for name in view) for view in VIEWS]
        return [init_device_mesh(device, size, mesh_dim_names=view) for size, view in zip(sizes, VIEWS, strict=True)]


def asked(section: "Parallel", ranks: int) -> Layout:
    """What a recipe's [parallel] makes of so many ranks. Raises UserError."""
    more = {name: getattr(section, name) for name in ("cp", "pp", "ep", "chunks")}
    return settle(ranks, section.replicate, section.shard, section.tp, **more)


def fewest(section: "Parallel") -> int:
    """Ranks that a recipe's [parallel] needs at least."""
    shard = section.shard or section.ep // gcd(section.ep, section.cp)
    return section.replicate * shard * section.cp * section.tp * section.pp


def settle(
    ranks: int,
    replicate: int = 1,
    shard: int | None = None,
    tp: int = 1,
    *,
    cp: int = 1,
    pp: int = 1,
    ep: int = 1,
    chunks: int = 1,
) -> Layout:
    """The layout of so many ranks; `shard` takes those that are left, if not said. Raises UserError with the sums."""
    asked = {"pp": pp, "replicate": replicate, "cp": cp, "tp": tp}
    others = prod(asked.values())
    if ranks % others:
        what = f"{_product(asked)} = {others} does not divide {ranks} rank{'s' * (ranks > 1)}"
        near, more = _nearest(ranks, asked), f", or {others} ranks (--ranks {others})" if ranks < others else ""
        sizes = {"pp": near["pp"], "replicate": near["replicate"], "shard": ranks // prod(near.values()), **near}
        raise UserError(f"parallel: {what}", expected=f"{_product(sizes)}, the nearest that does{more}")
    rest = ranks // others
    if shard not in (None, rest):
        what = f"{_product({**asked, 'shard': shard})} = {others * shard}, and the number of ranks is {ranks}"
        raise UserError(f"parallel: {what}", expected=f"shard = {rest}, or none said")
    if rest * cp % ep:
        what = f"ep = {ep} does not divide shard {rest} · cp {cp} = {rest * cp}, whose ranks share the experts"
        raise UserError(f"parallel: {what}", expected=_or(divisors(rest * cp)))
    return Layout(replicate, rest, tp, cp, pp, ep, chunks)


def refuse(layout: Layout, axes: "Mapping[str, Axis]", *, rows: int, sequence: int) -> None:
    """Raises UserError where a model or a batch cannot be divided so, with the arithmetic and what would do."""
    for name in SHARDED:
        count, _ = axes.get(name, (0, 0))
        if count % layout.tp:
            fit = [n for n in divisors(count) if all(axes.get(a, (0, 0))[0] % n == 0 for a in SHARDED)]
            what = f"parallel.tp = {layout.tp} does not divide the {count} {COUNTED.get(name, f'of axis {name!r}')}"
            raise UserError(what, expected=_or(fit))
    if sequence % layout.tp:
        raise UserError(f"parallel.tp = {layout.tp} does not divide a sequence of {sequence} tokens")
    least = lcm(2, layout.tp)  # a rank of cp has two chunks, which those of tp divide
    if layout.cp > 1 and sequence % (layout.cp * least):
        fit = [n for n in divisors(sequence) if sequence % (n * least) == 0] or [1]
        what = (
            f"parallel.cp = {layout.cp} · {least} = {layout.cp * least} does not divide a sequence of {sequence} tokens"
        )
        raise UserError(f"{what}: every rank has two chunks of it, cut by tp = {layout.tp}", expected=_or(fit))
    experts, _ = axes.get("expert", (0, 0))
    if layout.ep > 1 and not experts:
        raise UserError(f"parallel.ep = {layout.ep}, and the model has no experts", expected="1")
    if experts % layout.ep:
        fit = [n for n in divisors(experts) if layout.fold % n == 0]
        raise UserError(f"parallel.ep = {layout.ep} does not divide {experts} experts of a layer", expected=_or(fit))
    if rows % layout.data:
        near = max((n for n in divisors(rows) if n <= layout.data), default=1)
        what = f"replicate {layout.replicate} · shard {layout.shard} = {layout.data} data ranks do not divide a batch"
        raise UserError(f"parallel: {what} of {rows} rows", expected=f"{near} of them, or another train.batch")


def divisors(number: int) -> list[int]:
    """Ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _nearest(ranks: int, asked: Mapping[str, int]) -> dict[str, int]:
    """Divisors of the sizes that were asked for, which divide what those do: of those that fit, the largest."""
    fit = [sizes for sizes in product(*map(divisors, asked.values())) if ranks % prod(sizes) == 0]
    kept = [sum(a == b for a, b in zip(sizes, asked.values(), strict=True)) for sizes in fit]
    best = max(range(len(fit)), key=lambda i: (prod(fit[i]), kept[i]))
    return dict(zip(asked, fit[best], strict=True))


def _product(sizes: Mapping[str, int]) -> str:
    """Sizes as factors, those of 1 left out but for replicate and tp."""
    return " · ".join(f"{name} {size}" for name, size in sizes.items() if size > 1 or name in ("replicate", "tp"))


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers[:8]))
