"""Twin: on every layout losses, norm and every gradient are one process's, in float64; ranks count unequally."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.ahead import add_ahead
from pretrain.model.folder import make, materialise
from pretrain.model.weights import expand, held, initialise, local
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks, trained
from pretrain.parallel.layout import Layout
from pretrain.precision.policy import Policy
from pretrain.train.recompute import What, recompute
from pretrain.train.step import Steps, losses, sum_of, train_step
from ranks import ranks

LLAMA = dict(vocab_size=48, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)  # fmt: skip
MUTANTS = [
    ("src/pretrain/parallel/data.py", "            module.reshard()", "            pass"),
    ("src/pretrain/parallel/apply.py", "if divided(weight) is None and (g", "if divided(weight) is not None and (g"),
    (
        "src/pretrain/parallel/data.py",
        "one.set_gradient_divide_factor(1.0)",
        "one.set_gradient_divide_factor(2.0)",
    ),
    ("src/pretrain/parallel/apply.py", "dist.all_reduce(squares[0]", "dist.all_reduce(squares[1]"),
    ("src/pretrain/parallel/tensor.py", "module.reduce = lambda y: scatter_sum(y, group)", "module.reduce = None"),
    ("src/pretrain/parallel/tensor.py", "module.reduce = lambda x: mean(x, group)", "module.reduce = None"),
    ("src/pretrain/parallel/links.py", "return x * (group.rank() == 0)", "return x"),
    ("src/pretrain/parallel/layout.py", '"heads", "o",', '"o",'),
    ("src/pretrain/train/step.py", "sequences, tokens) / ranks.layout.tp", "sequences, tokens)"),
    ("src/pretrain/train/step.py", "routers.seen = ranks.sum_over_data(ranks.sum_over_stages(routers.seen))", "pass"),
    ("src/pretrain/train/step.py", "(ranks.sum_over_stages(routers.seen))", "(routers.seen)"),
    ("src/pretrain/train/step.py", "(ranks.sum_over_stages(sums))", "(sums)"),
    ("src/pretrain/train/routers.py", "return len(cls.of(model.blocks[:block]).layers) if block else 0", "return 0"),
    (
        "src/pretrain/parallel/apply.py",
        "return self.sum_over_stages(squares.sum()).sqrt()",
        "return squares.sum().sqrt()",
    ),
    ("src/pretrain/parallel/apply.py", 'return self.place("pp") > 0 and', "return False and"),
    ("src/pretrain/parallel/apply.py", '("ep", "expert_shard") if', '("expert_shard", "ep") if'),
    ("src/pretrain/parallel/apply.py", '("expert_shard", stacks), ("fold",', '("fold", stacks), ("fold",'),
    ("src/pretrain/parallel/pipeline.py", "        own += theirs", "        pass"),
    ("src/pretrain/parallel/pipeline.py", "*([cost] if cost.requires_grad else [])", ""),
    ("src/pretrain/parallel/pipeline.py", "    head.told = stages.told", "    head.told = None"),
    (
        "src/pretrain/parallel/pipeline.py",
        "parts[stages.place :: stages.size]",
        "parts[-1 - stages.place :: -stages.size]",
    ),
    ("src/pretrain/parallel/tensor.py", "return out if self.bias is None else out + self.bias", "return out"),
    ("src/pretrain/objective/cross_entropy.py", "[:, 0] * here", "[:, 0]"),
    ("src/pretrain/objective/cross_entropy.py", "-(weights * here)[:, None]", "-weights[:, None]"),
    (
        "src/pretrain/train/step.py",
        "ranks.sum_over_data(torch.tensor(own, dtype=torch.float64, device=steps.policy.device))",
        "own",
    ),
]
ENCODER = dict(vocab_size=48, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
MODELS = {
    "llama": LLAMA,
    "qwen2": {**LLAMA, "tie_word_embeddings": True},
    "qwen3": {**LLAMA, "head_dim": 8},
    "mistral": {**LLAMA, "sliding_window": 6},
    "gemma2": {**LLAMA, "head_dim": 6, "sliding_window": 6, "attn_logit_softcapping": 2.0},
    "gemma3": {**LLAMA, "head_dim": 6, "sliding_window": 6},
    "olmo2": LLAMA,
    "olmo3": {**LLAMA, "sliding_window": 6},
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "qwen3_moe": {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "deepseek_v3": dict(
        vocab_size=48,
        hidden_size=24,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        kv_lora_rank=8,
        q_lora_rank=12,
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_group=4,
        topk_group=2,
        first_k_dense_replace=1,
    ),
    "gpt_oss": {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 6},
    "gpt2": dict(vocab_size=48, n_embd=24, n_layer=2, n_head=4, n_positions=16),
    "nimble": {**ENCODER, "gram_buckets": 40},
    "bert": ENCODER,
    "roberta": {**ENCODER, "max_position_embeddings": 18},
    "modernbert": {**ENCODER, "local_attention": 6, "global_attn_every_n_layers": 2},
}
# A gradient that is zero but for rounding must not be blown up: hence eps.
OPTIMIZERS = {
    "adamw": lambda: find("optimizer.kinds", "adamw").AdamW(lr=0.01, eps=1e-3),
    "muon": lambda: find("optimizer.kinds", "muon").Muon(lr=0.01, eps=1e-3),
}
LAYOUTS = [
    Layout(shard=4),
    Layout(replicate=4),
    Layout(tp=2, shard=2),
    Layout(replicate=2, shard=2),
    Layout(replicate=2, tp=2),
    Layout(cp=4),
    Layout(cp=2, shard=2),
    Layout(cp=2, tp=2),
    Layout(pp=2, shard=2),
    Layout(pp=2, tp=2),
    Layout(pp=2, cp=2),
]
# Of the others, those whose stages differ from llama's: tied, without a causal order.
PIPED = {"gpt2": Layout(pp=2, tp=2), "bert": Layout(pp=2, shard=2)}
# Experts among ranks: of ep, of shard as well, and with every other size.
AMONG = {
    "mixtral": [Layout(shard=4, ep=2)],
    "deepseek_v3": [Layout(shard=4, ep=4), Layout(pp=2, shard=2, ep=2)],
    "qwen3_moe": [Layout(shard=2, tp=2, ep=2), Layout(cp=2, shard=2, ep=2)],
    "gpt_oss": [Layout(replicate=2, shard=2, ep=2), Layout(shard=2, tp=2, ep=2)],
}
DEEP = {**MODELS["deepseek_v3"], "num_hidden_layers": 4, "tie_word_embeddings": True}


def batch(rank: int = 0, ranks: int = 1) -> Batch:
    """Eight samples, every `ranks`-th for a rank; most targets of the first ones are ignored."""
    draw = np.random.Generator(np.random.Philox(0))
    tokens, targets = draw.integers(0, 48, (2, 8, 16))
    targets[0, 1:], targets[2, :9], targets[5, 3:] = IGNORE, IGNORE, IGNORE
    weights = draw.random((8, 16)).astype(np.float32)
    documents, rows = np.repeat([[0, 1]], 8, 0).repeat([5, 11], 1).astype(np.int32), np.arange(8)
    positions = np.broadcast_to(np.r_[0:5, 0:11][:, None], (8, 16, 1))
    whole = (tokens, targets, weights, documents, rows, positions)
    return Batch(*(np.ascontiguousarray(part[rank::ranks]) for part in whole))


def step(
    family: str,
    on: Ranks,
    optimizer: str,
    dtype: torch.dtype,
    steps: int,
    documents: bool = True,
    again: What = "none",
    ahead: int = 0,
) -> tuple[State, list[float], dict[str, torch.Tensor]]:
    """The state after some steps, their losses and norms, and this rank's gradients of the last."""
    module = find("model.families", family)
    config = module.Config(**MODELS[family])
    rows = module.weights(config)
    with torch.device("cpu" if on.alone else "meta"):
        model = make(module, config)
        rows = [*rows, *(add_ahead(model, rows, ahead) if ahead else [])]
        model.to(dtype)
    if on.alone:
        initialise(model, rows, 0.3, 0)
    rows = on.apply(model, rows, config.axes())
    if not on.alone:
        materialise(model, rows, "cpu")
        on.draw(model, rows, config.axes(), 0.3, 0)
    recompute(model, again)
    wholly = [] if on.alone else [on.wholly(rows, config.axes())]
    moves = OPTIMIZERS[optimizer]().build(model, rows, *wholly)
    state = State(model, rows, moves, 0, 0, History((Segment(0, {"a": 1.0}, {}),)), config.axes(), on)
    causal = getattr(module, "CAUSAL", True)
    kinds = {True: ("next_token", "NextToken"), False: ("masked", "Masked")}
    kind, name = kinds[causal]
    objective, policy = getattr(find("objective.kinds", kind), name)(), Policy(torch.float32, "cpu")
    if ahead:
        objective = find("objective.kinds", "multi_token").MultiToken(ahead, weight=0.6)
    same = Steps(objective, Vocabulary(48, mask=47), policy, documents, 0.5, 1e-2, 2, model, ranks=on)
    whole, seen = objective.prepare(batch(), same.vocabulary), []
    for _ in range(steps):
        result = train_step(state, batch(on.data_rank, on.layout.data), same, 1.0)
        with torch.no_grad():  # as between steps: of a length that no layout divides
            tokens = torch.arange(13)[None] % 48
            logits = model.head(model(tokens, causal=causal).hidden)
            held_out = sum_of(losses(model, whole, same))
        found = (result.loss, result.gradient_norm, *result.losses.values(), logits.abs().max(), logits.std(), held_out)
        seen += map(float, found)
        if result.routing is not None:
            seen += result.routing.load.flatten().tolist()
    on.fold(model)
    return state, seen, {weight.name: model.get_parameter(weight.name).grad for weight in trained(rows)}


@pytest.mark.parametrize("family", MODELS)
@ranks(4)
def test_every_layout_takes_the_same_steps(family: str) -> None:
    layouts = LAYOUTS if family == "llama" else [Layout(cp=2, tp=2), *filter(None, [PIPED.get(family)])]
    assert max(deviations(family, "adamw", torch.float64, 3, layouts)) <= 1e-11


@ranks(4)
def test_stages_of_many_chunks_and_of_experts_take_the_same_steps() -> None:
    MODELS["deepseek_v3"] = DEEP
    layouts = [Layout(pp=4), Layout(pp=2, chunks=2, shard=2)]
    assert max(deviations("deepseek_v3", "adamw", torch.float64, 3, layouts)) <= 1e-11


@ranks(4)
def test_experts_among_ranks_take_the_same_steps() -> None:
    for family, layouts in AMONG.items():
        assert max(deviations(family, "adamw", torch.float64, 2, layouts)) <= 1e-11, family
    assert max(deviations("deepseek_v3", "muon", torch.float64, 2, [Layout(shard=4, ep=2)])) <= 1e-9


@ranks(4)
def test_matrices_in_parts_are_orthogonalised_whole() -> None:
    # Newton-Schulz magnifies what was rounded.
    assert max(deviations("llama", "muon", torch.float64, 3, LAYOUTS[:-1])) <= 1e-9


@ranks(4)
def test_in_float32_as_well() -> None:
    assert max(deviations("llama", "adamw", torch.float32, 3, LAYOUTS[:-2])) <= 2e-5


def deviations(
    family: str,
    optimizer: str,
    dtype: torch.dtype,
    steps: int,
    layouts: Sequence[Layout],
    *,
    documents: bool = True,
    again: What = "none",
    ahead: int = 0,
) -> list[float]:
    """Of each layout, the largest relative difference from one process: of any loss or norm, and of any weight's
    gradient or value by the largest of that tensor. What is zero but for rounding, as BERT's biases of keys are, is
    held to a thousandth of the largest of all. The layouts compute `again` what is said, one process nothing."""
    alone, expected, gradients = step(family, Ranks(), optimizer, dtype, steps, documents, ahead=ahead)
    axes = find("model.families", family).Config(**MODELS[family]).axes()
    values = {name: held(alone.model, name).detach() for name in gradients}
    pairs = [(one, 1e-3 * max(float(x.abs().max()) for x in one.values())) for one in (gradients, values)]
    out = []
    for layout in layouts:
        on = Ranks.of(layout, "cpu")
        state, seen, own = step(family, on, optimizer, dtype, steps, documents, again, ahead)
        found = [abs(a - b) / max(abs(b), 1e-3) for a, b in zip(seen, expected, strict=True)]
        for weight in expand(state.rows):
            if weight.buffer:
                assert torch.equal(held(state.model, weight.name), held(alone.model, weight.name)), weight.name
        for weight in trained(state.rows):
            held_here, grad = held(state.model, weight.name), own[weight.name]
            boxes = on.boxes(weight, axes)
            assert sum(np.prod(box.size) for box in boxes) == local(held_here).numel(), weight.name
            for mine, (wholes, floor) in zip((grad, held_here), pairs, strict=True):
                whole = wholes[weight.name]
                for box in boxes:
                    off = (box.of_own(local(mine)).detach() - box.of_whole(whole)).abs().max()
                    found.append(float(off / whole.abs().max().clamp_min(floor)))
        out.append(max(found))
    return out
