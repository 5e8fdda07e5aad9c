"""Twin and ordeal: every precision trains as float32 does, on the same model and data; each part is in what is said; a
run whose matrices are bfloat16 goes on from its checkpoint bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.checkpoint.save import load, newest, save
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.narrow import narrowed, refuse
from pretrain.model.weights import expand, initialise
from pretrain.order.batch import Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.precision.linear import ScaledLinear
from pretrain.precision.policy import Policy, choose
from pretrain.precision.rounding import Rounding
from pretrain.train.step import Steps, train_step

MUTANTS = [
    ("src/pretrain/model/narrow.py", "stream or any(", "stream or all("),
    ("src/pretrain/model/narrow.py", "not found & set(higher)", "bool(found & set(higher))"),
    ("src/pretrain/model/narrow.py", "[weight.stacked :]", ""),
    ("src/pretrain/optimizer/rounded.py", "self.steps = int(state", "self.steps = 1 + int(state"),
    ("src/pretrain/parallel/apply.py", "torch.float32 if narrow else None", "None"),
]  # fmt: skip
SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2)  # fmt: skip
MODELS = {
    "llama": SIZES,
    "mixtral": {**SIZES, "num_local_experts": 4},
    "gpt_oss": {**SIZES, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "gpt2": dict(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32),
}


def batch(number: int) -> Batch:
    """Rows that count upwards by one, two or three, from anywhere."""
    start = np.random.Generator(np.random.Philox(number)).integers(0, 64, (8, 1))
    tokens = (start + np.arange(33) * (1 + start % 3)) % 64
    positions = np.broadcast_to(np.arange(32)[None, :, None], (8, 32, 1))
    whole = (tokens[:, :-1], tokens[:, 1:], np.ones((8, 32), np.float32), np.zeros((8, 32), np.int32), np.arange(8))
    return Batch(*map(np.ascontiguousarray, (*whole, positions)))


def begin(family: str, policy: Policy, optimizer: str = "adamw") -> tuple[State, Steps]:
    module = find("model.families", family)
    config = module.Config(**MODELS[family])
    rows, model = module.weights(config), make(module, config)
    initialise(model, rows, 0.1, 0)
    assert narrowed(model, rows, config.axes(), policy) == []
    kinds = find("optimizer.kinds", optimizer)
    options = kinds.AdamW(lr=3e-3) if optimizer == "adamw" else kinds.Muon(lr=0.02)
    moves = options.build(model, rows, rounding=Rounding(1))
    state = State(model, rows, moves, 0, 0, History((Segment(0, {"a": 1.0}, {}),)), config.axes())
    kind = find("objective.kinds", "next_token").NextToken()
    return state, Steps(kind, Vocabulary(64), policy, False, 1.0, 0.0, 8, model)


def run(state: State, steps: Steps, first: int, last: int) -> list[float]:
    return [float(train_step(state, batch(number), steps, 1.0).loss) for number in range(first, last)]


@pytest.mark.parametrize(
    ("family", "count", "narrow"),
    [("llama", 30, ("bf16", "bf16_pure", "fp8", "fp8_rowwise", "mxfp8")), ("mixtral", 16, ("bf16_pure", "fp8"))],
)
def test_every_precision_trains_as_float32_does(family: str, count: int, narrow: tuple[str, ...]) -> None:
    """The last loss is within 0.06 nats of float32's, which has come from 4.3 to 1.9 (a mixture's to 2.6)."""
    wide = run(*begin(family, choose("fp32", "cpu")), 0, count)
    assert wide[0] > 4.2 and wide[-1] < 2.7
    for precision in narrow:
        losses = run(*begin(family, choose(precision, "cpu")), 0, count)
        assert losses != wide and abs(losses[-1] - wide[-1]) < 0.06, precision


@pytest.mark.parametrize("family", MODELS)
def test_what_each_part_is_in(family: str) -> None:
    pure, steps = begin(family, choose("bf16_pure", "cpu"))
    kinds = {weight.name: (weight.group, pure.model.get_parameter(weight.name).dtype) for weight in expand(pure.rows)}
    for name, (group, dtype) in kinds.items():
        beside = (name.endswith("bias") and "norm" not in name and "router" not in name) or name.endswith("sinks")
        assert (dtype is torch.bfloat16) == (group == "matrix" or beside), name
    assert all(map(np.isfinite, run(pure, steps, 0, 1)))
    if family == "llama":
        bare, steps = begin(family, choose("bf16_pure", "cpu", []))
        assert {parameter.dtype for parameter in bare.model.parameters()} == {torch.bfloat16}
        assert all(map(np.isfinite, run(bare, steps, 0, 1)))
    if family == "gpt2":
        lower, steps = begin(family, choose("bf16_pure", "cpu", ["output"]))
        assert lower.model.get_parameter("embed.weight").dtype is torch.float32  # tied to the output
        assert lower.model.get_parameter("places.weight").dtype is torch.bfloat16
        assert all(map(np.isfinite, run(lower, steps, 0, 1)))
    narrow, _ = begin(family, choose("fp8", "cpu"))
    for name, (group, _) in kinds.items():
        owner, _, last = name.rpartition(".")
        module = narrow.model.get_submodule(owner)
        scaled = isinstance(module, ScaledLinear) or last in getattr(module, "scaled", {})
        assert scaled == (group == "matrix" or (isinstance(module, ScaledLinear) and last == "bias")), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_in_bfloat16_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    policy = choose("bf16_pure", "cpu")
    straight, steps = begin("mixtral", policy, optimizer)
    run(straight, steps, 0, 4)
    stopped, steps = begin("mixtral", policy, optimizer)
    run(stopped, steps, 0, 2)
    save(stopped, tmp_path, "")
    again, steps = begin("mixtral", policy, optimizer)
    found, _ = newest(tmp_path)
    assert found is not None
    load(found, again)
    run(again, steps, 2, 4)
    ends = [{**dict(one.model.named_parameters()), **one.optimizer.state()} for one in (straight, again)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert {value.dtype for value in ends[0].values()} == {torch.bfloat16, torch.float32}


def test_norms_of_bfloat16_gradients_are_wide() -> None:
    state, steps = begin("llama", choose("bf16_pure", "cpu"))
    norm = train_step(state, batch(0), replace(steps, clip=0.0), 1.0).gradient_norm
    exact = sum(float(p.grad.double().square().sum()) for p in state.model.parameters() if p.grad is not None) ** 0.5
    assert norm.dtype is torch.float32 and float(norm) == pytest.approx(exact, rel=1e-6)


def test_a_policy_says_what_it_is() -> None:
    said = choose("mxfp8", "cpu").sentence()
    assert "mxfp8 (emulated" in said and "CUDA 10.0" in said and "output float32 with products in bfloat16" in said
    assert choose("fp32", "cpu").emulated == "" and "emulated" not in choose("bf16_pure", "cpu").sentence()
    with pytest.raises(UserError, match=r"train.higher: the output's .* expected \"output\""):
        choose("fp8", "cpu", ["router"])


def test_a_layout_that_would_leave_matrices_out_is_refused() -> None:
    module = find("model.families", "llama")
    config = module.Config(**MODELS["llama"])
    with pytest.raises(UserError, match=r"parallel.tp: fp8 needs multiples of 16.*q.weight would be 8 x 32"):
        refuse(module.weights(config), config.axes(), choose("fp8", "cpu"), ["q"], 4)
    small = module.Config(**{**MODELS["llama"], "intermediate_size": 40})
    stay = narrowed(make(module, small), module.weights(small), small.axes(), choose("fp8", "cpu"))
    assert len(stay) == 6 and all(".mlp." in name for name in stay)
