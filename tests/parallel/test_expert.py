"""Twin: rows that travel to their experts come back as if each expert were called row by row; gradients as well."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import silu

from pretrain.model.layers.experts import Experts, GLUs, Router
from pretrain.model.weights import Weight
from pretrain.parallel.expert import spread
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/expert.py", "index_select(0, order.argsort())", "index_select(0, order)"),
    ("src/pretrain/parallel/expert.py", "stacks(here, theirs.sum(0))", "stacks(here, ours.sum(0))"),
    ("src/pretrain/parallel/expert.py", "ctx.back = come, leave, group", "ctx.back = leave, come, group"),
    ("src/pretrain/parallel/expert.py", "        dist.all_reduce(out, group=self.group)", "        pass"),
    ("src/pretrain/parallel/expert.py", "(group.rank() * each, (group.rank() + 1) * each)", "(0, each)"),
    ("src/pretrain/parallel/expert.py", "made if i == place else", "made if i == 0 else"),
]
WIDTH, INNER, AXES = 16, 24, {"expert": (8, 1), "embed": (16, 1), "expert_mlp": (24, 1)}
TABLE = [
    Weight("stacks.gate", "", "expert expert_mlp embed"),
    Weight("stacks.up", "", "expert expert_mlp embed"),
    Weight("stacks.down", "", "expert embed expert_mlp"),
]
# The experts that each rank's rows chose: none expert 3, nor those of the third rank; the last rank has no rows.
CHOSEN = [[0, 0, 1, 2, 7, 7], [0, 2, 6], [1], []]


def made(dtype: torch.dtype) -> Experts:
    """The same on every rank."""
    draw = torch.Generator().manual_seed(0)
    model = Experts(Router(WIDTH, 8, 1), GLUs(WIDTH, INNER, 8)).to(dtype)
    for weight in model.parameters():
        nn.init.normal_(weight, generator=draw)
    return model


def numbers(rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A rank's rows, and the gradients of what comes of them."""
    draw = torch.Generator().manual_seed(1 + rank)
    rows, up = torch.randn(2, len(CHOSEN[rank]), WIDTH, generator=draw, dtype=torch.float64)
    return rows.to(dtype).requires_grad_(), up.to(dtype)


def one_by_one(stacks: GLUs, rows: Tensor, chosen: list[int]) -> Tensor:
    """Each row through its expert, alone."""
    out = [
        stacks.down[e] @ (silu(stacks.gate[e] @ row) * (stacks.up[e] @ row))
        for row, e in zip(rows, chosen, strict=True)
    ]
    return torch.cat([rows[:0], *(row[None] for row in out)])


def near(a: Tensor | None, b: Tensor | None, dtype: torch.dtype) -> None:
    assert a is not None and b is not None
    close = 1e-12 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(a, b, rtol=close, atol=close * float(b.abs().max()) if b.numel() else 0.0)


@ranks(4)
def test_rows_travel_to_their_experts_and_back() -> None:
    group, me = dist.group.WORLD, dist.get_rank()
    assert group is not None
    for dtype in (torch.float64, torch.float32):
        whole, model = made(dtype), made(dtype)
        spread(model, TABLE, AXES, group)
        assert model.dispatch is not None and len(model.stacks.gate) == 2
        expected = []
        for rank, chosen in enumerate(CHOSEN):
            rows, up = numbers(rank, dtype)
            out = one_by_one(whole.stacks, rows, chosen)
            (out * up).sum().backward()
            expected.append((out.detach(), rows.grad))
        rows, up = numbers(me, dtype)
        counts = torch.tensor(CHOSEN[me], dtype=torch.int64).bincount(minlength=8)
        out = model.dispatch(rows, counts, model.stacks)
        (out * up).sum().backward()
        near(out.detach(), expected[me][0], dtype)
        near(rows.grad, expected[me][1], dtype)
        for mine, all_of_it in zip(model.stacks.parameters(), whole.stacks.parameters(), strict=True):
            assert all_of_it.grad is not None
            near(mine.grad, all_of_it.grad[2 * me : 2 * me + 2], dtype)
        with torch.no_grad():  # all have the same rows
            rows, counts = numbers(0, dtype)[0], torch.tensor(CHOSEN[0]).bincount(minlength=8)
            out = model.dispatch(rows, counts, model.stacks)
            near(out, expected[0][0], dtype)
            every = [torch.empty_like(out) for _ in CHOSEN]
            dist.all_gather(every, out)
            assert all(torch.equal(one, out) for one in every)
