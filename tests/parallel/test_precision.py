"""Twin: with tp 2, scales of narrow numbers are one process's; in any pieces, so is every bit that chance rounds."""

from typing import Any

import torch
from torch import Tensor, nn

from precision.test_policy import SIZES, batch
from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.narrow import narrowed
from pretrain.model.weights import initialise, local
from pretrain.order.batch import Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks, trained
from pretrain.parallel.data import in_pieces
from pretrain.parallel.layout import Layout
from pretrain.precision.linear import Scaling
from pretrain.precision.policy import Policy, choose
from pretrain.precision.rounding import Rounding
from pretrain.train.step import Steps, train_step
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/tensor.py", 'axis, most = "in" if dim', 'axis, most = "out" if dim'),
    ("src/pretrain/parallel/tensor.py", "module.scaling = module.scaling.divided(axis, most)", "pass"),
    ("src/pretrain/parallel/tensor.py", "scaled[last] = scaled[last].divided(axis, most)", "pass"),
    ("src/pretrain/parallel/tensor.py", "if scaled is None else scaled_linear", "if scaled else scaled_linear"),
    ("src/pretrain/precision/linear.py", "axes.split()[rows:]", "axes.split()[1:]"),
    ("src/pretrain/parallel/pieces.py", "place[..., None] * length", "place[..., None] * size"),
    ("src/pretrain/parallel/data.py", "torch.float32 if torch.bfloat16 in own else None", "None"),
]

WIDE = {**SIZES, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}  # parts of blocks of 32
MODELS = {"llama": WIDE, "mixtral": {**WIDE, "num_local_experts": 4}}


def begin(family: str, policy: Policy, on: Ranks, dtype: torch.dtype) -> tuple[State, Steps]:
    module = find("model.families", family)
    config = module.Config(**MODELS[family])
    rows, axes, model = module.weights(config), config.axes(), make(module, config).to(dtype)
    initialise(model, rows, 0.3, 0)
    assert narrowed(model, rows, axes, policy) == []
    on.apply(model, rows, axes)
    adamw = find("optimizer.kinds", "adamw").AdamW(lr=0.01)
    moves = adamw.build(model, rows, rounding=Rounding(1, on.places(rows, axes)))
    state = State(model, rows, moves, 0, 0, History((Segment(0, {"a": 1.0}, {}),)), axes, on)
    kind = find("objective.kinds", "next_token").NextToken()
    return state, Steps(kind, Vocabulary(64), policy, False, 1.0, 0.0, 8, model, ranks=on)


def part(whole: Batch, rank: int, of: int) -> Batch:
    fields = (whole.tokens, whole.targets, whole.weights, whole.documents, whole.rows, whole.positions)
    return Batch(*(field[rank::of] for field in fields))


def pieces(
    state: State, values: dict[str, Tensor], wholes: dict[str, Tensor]
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """By name, the blocks that this rank holds beside those of one process's."""
    out = {}
    for weight in trained(state.rows):
        blocks = state.ranks.boxes(weight, state.axes)
        own, whole = local(values[weight.name]), wholes[weight.name]
        out[weight.name] = [(box.of_own(own), box.of_whole(whole)) for box in blocks]
    return out


def gradients(model: nn.Module, rows: Any) -> dict[str, Tensor]:
    return {weight.name: model.get_parameter(weight.name).grad for weight in trained(rows)}


@ranks(2)
def test_scales_are_of_the_whole_tensor_with_tp() -> None:
    """In float64, where a scale of a part would be off by percents."""
    for family in ("llama", "mixtral"):
        for kind in ("fp8", "fp8_rowwise", "mxfp8"):
            policy = Policy(torch.float32, "cpu", Scaling(kind))
            found = []
            for layout in (Layout(), Layout(tp=2)):
                on = Ranks.of(layout, "cpu")
                state, steps = begin(family, policy, on, torch.float64)
                result = train_step(state, batch(0), steps, 1.0)
                found.append((float(result.loss), gradients(state.model, state.rows)))
            (loss, wholes), (other, own) = found
            assert abs(loss - other) < 1e-11, (family, kind)
            for name, pairs in pieces(state, own, wholes).items():
                for mine, theirs in pairs:
                    assert float((mine - theirs).abs().max()) <= 1e-9 * float(wholes[name].abs().max()), (kind, name)


@ranks(2)
def test_chance_does_not_know_the_layout() -> None:
    """From the same gradients, every bit; from gradients that ranks have summed, the same loss."""
    policy = choose("bf16_pure", "cpu")
    alone, steps = begin("mixtral", policy, Ranks(), torch.float32)
    losses = [float(train_step(alone, batch(n), steps, 1.0).loss) for n in range(2)]
    draw = torch.Generator().manual_seed(0)
    pushed = {w.name: torch.randn(w.shape(alone.axes), generator=draw).bfloat16() for w in trained(alone.rows)}
    fresh, _ = begin("mixtral", policy, Ranks(), torch.float32)
    push(fresh, {name: value for name, value in pushed.items()})
    for layout in (Layout(shard=2), Layout(tp=2)):
        on = Ranks.of(layout, "cpu")
        state, steps = begin("mixtral", policy, on, torch.float32)
        push(state, pushed)
        values = {weight.name: state.model.get_parameter(weight.name).detach() for weight in trained(state.rows)}
        wholes = {name: fresh.model.get_parameter(name).detach() for name in values}
        for name, pairs in pieces(state, values, wholes).items():
            assert all(torch.equal(mine, theirs) for mine, theirs in pairs), (layout, name)
        state, steps = begin("mixtral", policy, on, torch.float32)
        for number, loss in enumerate(losses):
            mine = part(batch(number), on.data_rank, on.layout.data)
            assert abs(float(train_step(state, mine, steps, 1.0).loss) - loss) < 0.01 * loss
        assert state.model.get_parameter("blocks.0.attention.q.weight").grad.dtype is torch.bfloat16


@ranks(4)
def test_gradients_in_bfloat16_are_summed_in_float32() -> None:
    on = Ranks.of(Layout(shard=4), "cpu")
    draws = [torch.randn(8, 64, generator=torch.Generator().manual_seed(rank)).bfloat16() for rank in range(4)]
    module = nn.Linear(64, 8, bias=False, dtype=torch.bfloat16)
    in_pieces(module, on.view("fold"))
    module(torch.eye(64, dtype=torch.bfloat16)).mul(draws[on.number].mT).sum().backward()
    assert module.weight.grad is not None
    whole = torch.stack(draws).float().sum(0).bfloat16()
    assert torch.equal(local(module.weight.grad), whole[2 * on.number : 2 * on.number + 2])


def push(state: State, gradients: dict[str, Tensor]) -> None:
    """Two updates from gradients of whole weights."""
    for _ in range(2):
        for weight in trained(state.rows):
            parameter = state.model.get_parameter(weight.name)
            grad = torch.zeros_like(parameter)
            for box in state.ranks.boxes(weight, state.axes):
                box.of_own(local(grad)).copy_(box.of_whole(gradients[weight.name]))
            parameter.grad = grad
        state.optimizer.step(1.0)
