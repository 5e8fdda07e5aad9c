"""Twin: weights sent in bfloat16 give every bit that weights cast on arrival give; and so does one process."""

from typing import Any

import numpy as np
import torch

from parallel.test_apply import MODELS, batch
from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import held, initialise, local
from pretrain.order.batch import Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks, trained
from pretrain.parallel.layout import Layout
from pretrain.precision.policy import choose
from pretrain.train.recompute import What, recompute
from pretrain.train.step import Steps, train_step
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/data.py", 'if weight.group == "matrix" or', "if True or"),
    (
        "src/pretrain/parallel/data.py",
        "_unsharded_param.grad_dtype = torch.float32",
        "_unsharded_param.grad_dtype = None",
    ),
    ("src/pretrain/parallel/data.py", "one.param_dtype = torch.bfloat16", "pass"),
    ("src/pretrain/parallel/apply.py", "if gathered is torch.bfloat16:", "if False:"),
    ("src/pretrain/objective/cross_entropy.py", "fresh(head, dtype=kind)", "fresh(head)"),
]
KEPT: dict[torch.dtype, int] = {}  # bytes, between the passes of all blocks
LAYOUTS = {
    "llama": [Layout(shard=2), Layout(replicate=2)],
    "qwen2": [Layout(shard=2)],  # tied
    "mixtral": [Layout(shard=2), Layout(shard=2, ep=2)],
    "gpt_oss": [Layout(shard=2)],  # a weight and a bias of its own in attention and in experts
    "gemma2": [Layout(shard=2)],  # norms after what they norm
    "deepseek_v3": [Layout(shard=2)],
    "bert": [Layout(shard=2)],
}


def after(family: str, on: Ranks, gathered: torch.dtype, *, micro: int, what: What = "none") -> dict[str, torch.Tensor]:
    """Losses, logits without gradient, gradients and weights of two steps in bf16."""
    module, policy = find("model.families", family), choose("bf16", "cpu")
    config = module.Config(**MODELS[family])
    rows, axes, model = module.weights(config), config.axes(), make(module, config)
    initialise(model, rows, 0.3, 0)
    rows = on.apply(model, rows, axes, gathered)
    recompute(model, what, 1e5)
    moves = find("optimizer.kinds", "adamw").AdamW(lr=0.01).build(model, rows)
    state = State(model, rows, moves, 0, 0, History((Segment(0, {"a": 1.0}, {}),)), axes, on)
    causal = getattr(module, "CAUSAL", True)
    leaf = find("objective.kinds", "next_token").NextToken() if causal else find("objective.kinds", "masked").Masked()
    steps = Steps(leaf, Vocabulary(48, mask=47), policy, True, 0.0, 1e-2, micro, model, ranks=on)
    mine = both() if on.alone else batch(on.data_rank, on.layout.data)
    tokens, out = torch.arange(13)[None] % 48, dict[str, torch.Tensor]()
    for number in range(2):
        with torch.no_grad(), policy.autocast():  # before the first step, and between steps
            out[f"logits {number}"] = model.head(model(tokens, causal=causal).hidden)  # type: ignore[operator]
        out[f"loss {number}"] = train_step(state, mine, steps, 1.0).loss
    on.fold(model)
    if what == "budget":
        KEPT[gathered] = sum(next(iter(block.forward.bytes.values())) for block in model.blocks)  # type: ignore
    for weight in trained(rows):
        gradient = model.get_parameter(weight.name).grad
        assert gradient is not None and gradient.dtype is held(model, weight.name).dtype is torch.float32
        out[f"gradient {weight.name}"], out[weight.name] = local(gradient), local(held(model, weight.name)).detach()
    return out


def both() -> Batch:
    """The samples of two ranks, one's after the other's."""
    whole, order = batch(), np.r_[0:8:2, 1:8:2]
    fields = (whole.tokens, whole.targets, whole.weights, whole.documents, whole.rows, whole.positions)
    return Batch(*(field[order] for field in fields))


def differ(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of what differs in a bit."""
    return [name for name in expected if not torch.equal(found[name], expected[name])]


@ranks(2)
def test_not_a_bit_depends_on_what_weights_are_sent_as() -> None:
    for family, layouts in LAYOUTS.items():
        for layout in layouts:
            on = Ranks.of(layout, "cpu")
            wide, narrow = (after(family, on, dtype, micro=2) for dtype in (torch.float32, torch.bfloat16))
            assert not differ(narrow, wide), (family, layout)


@ranks(2)
def test_one_process_takes_the_same_step_and_so_do_blocks_that_compute_again() -> None:
    on = Ranks.of(Layout(shard=2), "cpu")
    alone = after("llama", Ranks(), torch.bfloat16, micro=4)
    kinds: tuple[What, ...] = ("none", "selective", "full", "budget")
    for what in kinds:
        found = after("llama", on, torch.bfloat16, micro=4, what=what)
        assert not differ(found, {name: mine(whole, found[name], on) for name, whole in alone.items()}), what
    after("llama", on, torch.float32, micro=4, what="budget")
    matrices = 2 * (2 * 24 * 24 + 2 * 24 * 12 + 3 * 24 * 32)
    assert KEPT[torch.float32] - KEPT[torch.bfloat16] == 2 * matrices


def mine(whole: torch.Tensor, own: torch.Tensor, on: Ranks) -> torch.Tensor:
    """This rank's half of rows, where it has a half."""
    return whole if whole.shape == own.shape else whole.chunk(2)[on.place("fold")]
