"""Twin: what is computed again gives the gradients of what was kept, bit for bit, and what is kept is counted."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parallel.test_apply import MODELS, batch, deviations
from pretrain.base.extension import find
from pretrain.model.ahead import add_ahead
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.parallel.layout import Layout
from pretrain.train.recompute import measured, recompute
from ranks import ranks

MUTANTS = [
    (
        "src/pretrain/train/recompute.py",
        "[block for _, block in every_block(model) if",
        "[block for block in model.blocks if",
    ),
    ("src/pretrain/train/recompute.py", "* (self.layer + 1) <= self.budget", "* self.layer <= self.budget"),
    ("src/pretrain/train/recompute.py", "storage.data_ptr() not in weights", "True"),
    (
        "src/pretrain/train/recompute.py",
        "MUST_SAVE if _product(operation) else",
        "PREFER_RECOMPUTE if _product(operation) else",
    ),
    ("src/pretrain/train/recompute.py", "else Products(second)", "else second"),
    ("src/pretrain/train/recompute.py", "        if _product(operation):", "        if False:"),
]


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[operation.__name__.partition(".")[0]] += 1
        return operation(*args, **(kwargs or {}))


def run(family: str, what: Any, budget: float = 0.0) -> tuple[dict[str, torch.Tensor], int, Counter[str]]:
    """Gradients, bytes kept between the passes, and operations of both."""
    module = find("model.families", family)
    config = module.Config(**MODELS[family])
    model, rows = make(module, config), module.weights(config)
    looks = {"ahead": True} if family == "llama" else {}
    initialise(model, [*rows, *(add_ahead(model, rows, 1) if looks else [])], 0.3, 0)
    recompute(model, what, budget)
    tokens, documents = (torch.from_numpy(x).long() for x in (batch().tokens, batch().documents))
    causal = getattr(module, "CAUSAL", True)
    out: list[Any] = []
    kept = measured(model, lambda: out.append(model(tokens, documents=documents, causal=causal, **looks)))
    with Operations() as operations:
        (sum(states.square().mean() for states in (out[0].hidden, *out[0].ahead)) + out[0].aux.sum()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept, operations.counts


@pytest.mark.parametrize("family", ["llama", "gemma2", "deepseek_v3", "bert"])
def test_gradients_are_the_same_bit_for_bit(family: str) -> None:
    expected, all_kept, plain = run(family, "none")
    for what, budget in (("selective", 0.0), ("full", 0.0), ("budget", all_kept / 2)):
        found, kept, operations = run(family, what, budget)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), what
        assert kept < all_kept
        products = operations["mm"] + operations["addmm"] - plain["mm"] - plain["addmm"]
        assert (products == 0) == (what == "selective"), what
        assert operations["mul"] > plain["mul"] or family == "bert"


def test_a_budget_is_kept_to() -> None:
    model_bytes = {budget: run("llama", "budget", budget)[1] for budget in (0.0, 1e12)}
    least, most = model_bytes[0.0], model_bytes[1e12]
    assert most == run("llama", "none")[1]
    block = (most - least) / 3  # the model has two blocks and, little larger, a module that looks ahead
    assert least < run("llama", "budget", block * 1.2)[1] < most
    assert run("llama", "budget", block * 0.8)[1] == least


def test_of_a_product_the_input_is_kept_and_no_weight_counted() -> None:
    layer = torch.nn.Linear(8, 4)
    assert measured(layer, layer, torch.ones(3, 8, requires_grad=True)) == 3 * 8 * 4


@ranks(4)
def test_experts_on_other_ranks_are_asked_again() -> None:
    """FSDP has their stacks in two pieces, then in one, which it takes for another model's in the second pass."""
    layouts = {
        "mixtral": Layout(shard=4, ep=2),
        "qwen3_moe": Layout(shard=2, tp=2, ep=2),
        "deepseek_v3": Layout(pp=2, shard=2, ep=2),
    }
    for family, layout in layouts.items():
        assert max(deviations(family, "adamw", torch.float64, 1, [layout], again="selective")) <= 1e-11, family
