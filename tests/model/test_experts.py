"""Oracle and twin: routers against transformers', dispatch against a loop over tokens, statistics against its loss."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from pretrain.model.layers.experts import Experts, GLUs, Router, Routing, grouped, one_by_one, routing
from pretrain.model.layers.feed_forward import GLU

MUTANTS = [
    ("src/pretrain/model/layers/experts.py", "scores = scores + self.balance_bias", "pass"),
    ("src/pretrain/model/layers/experts.py", "weights = scores.gather", "weights = (scores + 0.1).gather"),
    ("src/pretrain/model/layers/experts.py", "grouped.topk(2, -1)", "grouped.topk(1, -1)"),
    ("src/pretrain/model/layers/experts.py", "weights * self.scale", "weights"),
    ("src/pretrain/model/layers/experts.py", "order // top_k", "order % len(rows)"),
    ("src/pretrain/model/layers/experts.py", "order.argsort()", "order"),
    ("src/pretrain/model/layers/experts.py", "y + self.shared(x)", "y"),
    ("src/pretrain/model/layers/experts.py", "(choice.share * kept[..., None])", "choice.share"),
    ("src/pretrain/model/layers/experts.py", "/ tokens * share / tokens", "/ tokens * share"),
    ("src/pretrain/model/layers/experts.py", ".square() * kept)", " * kept)"),
    ("src/pretrain/model/layers/experts.py", "sum(-1) * kept)", "sum(-1))"),
]
WIDTH, EXPERTS, TOP_K = 32, 8, 3
X = torch.randn(2, 9, WIDTH, generator=torch.Generator().manual_seed(0))


def drawn(module: torch.nn.Module) -> Any:
    """Every parameter and buffer redrawn."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return module


PUBLISHED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "Mixtral": ("mixtral", "MixtralTopKRouter", {"num_local_experts": EXPERTS}, {}),
    "Qwen3": ("qwen3_moe", "Qwen3MoeTopKRouter", {"num_experts": EXPERTS, "norm_topk_prob": True}, {}),
    "Qwen3, as they are": (
        "qwen3_moe", "Qwen3MoeTopKRouter", {"num_experts": EXPERTS, "norm_topk_prob": False}, {"renormalise": False}),
    "gpt-oss": ("gpt_oss", "GptOssTopKRouter", {"num_local_experts": EXPERTS}, {"bias": True}),
    "DeepSeek-V3": (
        "deepseek_v3", "DeepseekV3TopkRouter",
        {"n_routed_experts": EXPERTS, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
         "routed_scaling_factor": 2.5},
        {"score": "sigmoid", "scale": 2.5, "balanced": True, "groups": 4, "kept": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_routers_choose_and_weigh_as_the_published_ones(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    module, kind, settings, options = PUBLISHED[name]
    modeling = getattr(getattr(transformers.models, module), f"modeling_{module}")
    config = getattr(modeling, kind.partition("Top")[0] + "Config")(
        hidden_size=WIDTH, num_experts_per_tok=TOP_K, **settings
    )
    theirs = drawn(getattr(modeling, kind)(config))
    ours = drawn(Router(WIDTH, EXPERTS, TOP_K, **options))
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        mine.copy_(other)
    logits, weights, experts = theirs(X.flatten(0, 1))
    choice = ours(X)
    assert torch.allclose(choice.logits.flatten(0, 1), logits, atol=1e-6)
    assert torch.allclose(dense(choice.experts.flatten(0, 1), choice.weights.flatten(0, 1)), dense(experts, weights))
    assert torch.allclose(choice.share.sum(-1), torch.ones(2, 9))


def dense(experts: Tensor, weights: Tensor) -> Tensor:
    """[n, experts] of the chosen ones' weights, in whatever order they come."""
    return torch.zeros(len(experts), EXPERTS).scatter(-1, experts, weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", [[4, 0, 7, 1], [0, 0, 0, 12], [0, 0, 0, 0]])
def test_the_grouped_product_is_one_product_an_expert(counts: list[int], dtype: torch.dtype) -> None:
    found = []
    generator = torch.Generator().manual_seed(0)
    rows, stack = (torch.randn(*shape, generator=generator) for shape in ((sum(counts), 16), (4, 24, 16)))
    slope = torch.randn(sum(counts), 24, generator=generator).to(dtype)
    for product in (grouped, one_by_one, apart):
        leaves = rows.to(dtype).requires_grad_(), stack.to(dtype).requires_grad_()
        out = product(*leaves, torch.tensor(counts))
        found.append((out, *torch.autograd.grad(out, leaves, slope)))
    for one, other, truth in zip(*found, strict=True):
        assert one.dtype == dtype and torch.equal(one, other)
        assert torch.allclose(one.double(), truth.double(), rtol=1e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-5)


def apart(rows: Tensor, stack: Tensor, counts: Tensor) -> Tensor:
    """Every row by its own product, in float64."""
    expert = torch.arange(len(stack)).repeat_interleave(counts)
    return torch.einsum("ni,noi->no", rows.double(), stack.double()[expert]).to(rows.dtype)


@pytest.mark.parametrize("width", [WIDTH, 30])  # 30 float32 are no multiple of 16 bytes
def test_no_token_is_dropped(width: int) -> None:
    layer: Experts = drawn(Experts(Router(width, EXPERTS, TOP_K), GLUs(width, 24, EXPERTS), GLU(width, 20)))
    one, other = (X[..., :width].clone().requires_grad_() for _ in range(2))
    y, _ = layer(one)
    twin = by_token(layer, other)
    assert torch.allclose(y, twin, atol=1e-6)
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    parameters = list(layer.parameters())
    for mine, truth in zip(
        torch.autograd.grad(y, [one, *parameters], slope),
        torch.autograd.grad(twin, [other, *parameters], slope),
        strict=True,
    ):
        assert torch.allclose(mine, truth, atol=1e-5)


def by_token(layer: Experts, x: Tensor) -> Tensor:
    """Twin: for every token, all experts in turn."""
    stacks, router, shared = layer.stacks, layer.router, layer.shared
    assert isinstance(stacks, GLUs) and isinstance(shared, GLU)
    rows = []
    for row in x.flatten(0, 1):
        scores = linear(row, router.weight).softmax(-1)
        best = scores.detach().topk(TOP_K).indices.tolist()
        outs = [
            scores[e] * linear(silu(linear(row, stacks.gate[e])) * linear(row, stacks.up[e]), stacks.down[e])
            for e in best
        ]
        rows.append(sum(outs, torch.zeros(())) / sum(scores[e] for e in best) + shared(row))
    return torch.stack(rows).view_as(x)


def test_what_dispatch_sends_away_comes_back() -> None:
    """Two halves of the experts, as two ranks would hold them."""
    layer: Experts = drawn(Experts(Router(WIDTH, EXPERTS, TOP_K), GLUs(WIDTH, 24, EXPERTS)))
    whole, _ = layer(X)
    halves = [GLUs(WIDTH, 24, EXPERTS // 2) for _ in range(2)]
    for name, tensor in layer.stacks.state_dict().items():
        for half, part in zip(halves, tensor.chunk(2), strict=True):
            half.state_dict()[name].copy_(part)

    def dispatch(rows: Tensor, counts: Tensor, stacks: object) -> Tensor:
        first = int(counts[: EXPERTS // 2].sum())
        parts = zip(halves, (rows[:first], rows[first:]), counts.chunk(2), strict=True)
        return torch.cat([half(part, count) for half, part, count in parts])

    layer.dispatch = dispatch
    assert torch.allclose(layer(X)[0], whole, atol=1e-6)


def test_statistics_are_the_published_loss_of_each_sequence_and_do_not_see_padding() -> None:
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral", reason="transformers not installed")
    layer: Experts = drawn(Experts(Router(WIDTH, EXPERTS, TOP_K), GLUs(WIDTH, 24, EXPERTS)))
    counted = torch.ones(2, 9, dtype=torch.bool)
    counted[1, 4:] = False
    logits, mask = layer.router(X).logits, counted.float()
    found = routing(torch.cat([layer(X)[1], layer(X, counted)[1]]), EXPERTS)
    for row, kept in enumerate((torch.ones(2, 9), mask)):
        published = mixtral.load_balancing_loss_func
        balance = sum(published((logits[b],), EXPERTS, TOP_K, attention_mask=kept[b]) for b in range(2))
        mine, truth = (
            torch.autograd.grad(loss, layer.router.weight, retain_graph=True)[0]
            for loss in (found.balance[row], balance)
        )
        assert torch.allclose(mine, truth, rtol=1e-4, atol=1e-7)
        now, share = Routing(*(part.detach() for part in found)), logits.detach().softmax(-1)
        assert float(now.balance[row]) == pytest.approx(float(balance.detach()), rel=1e-6)
        assert float(now.z[row]) == pytest.approx(
            float((logits.detach().exp().sum(-1).log() ** 2 * kept).sum()), rel=1e-5
        )
        entropy = -(share * share.log()).sum(-1) * kept
        assert float(now.entropy[row]) == pytest.approx(float(entropy.sum()), rel=1e-5)
        assert int(now.load[row].sum()) == TOP_K * int(kept.sum())
    best = logits[1, :4].topk(TOP_K).indices.flatten().tolist() + logits[0].topk(TOP_K).indices.flatten().tolist()
    assert found.load[1].tolist() == [best.count(e) for e in range(EXPERTS)]


def test_a_batch_counts_the_same_however_it_is_cut() -> None:
    layer: Experts = drawn(Experts(Router(WIDTH, EXPERTS, TOP_K, balanced=True), GLUs(WIDTH, 24, EXPERTS)))
    assert torch.allclose(layer(X)[1], layer(X[:1])[1] + layer(X[1:])[1], rtol=1e-5)
