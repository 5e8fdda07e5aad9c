"""Oracle, twin and closed form: what balances experts, over a step however it is cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.base.extension import find
from pretrain.checkpoint.save import load, save
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.layers.experts import Choice, Router
from pretrain.model.weights import Weight, initialise
from pretrain.order.batch import Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.precision.policy import Policy
from pretrain.recipe.train import Balance
from pretrain.train.routers import told
from pretrain.train.step import Result, Steps, train_step

MUTANTS = [
    ("src/pretrain/train/routers.py", "found.balance.mean() / sequences", "found.balance.mean()"),
    ("src/pretrain/train/routers.py", "found.z.mean() / max(tokens, 1)", "found.z.mean() / sequences"),
    ("src/pretrain/train/routers.py", "torch.sign(load.mean() - load)", "torch.sign(load - load.mean())"),
    ("src/pretrain/train/routers.py", "self.seen + self.last.detach()", "self.last.detach()"),
    ("src/pretrain/train/routers.py", "(found.load == 0)", "(found.load > 0)"),
    ("src/pretrain/train/step.py", "batch.own_weights > 0", "batch.own_weights >= 0"),
]
qwen = find("model.families", "qwen3_moe")
CONFIG = qwen.Config(
    vocab_size=60, hidden_size=16, intermediate_size=24, moe_intermediate_size=12, num_hidden_layers=3,
    num_attention_heads=2, num_key_value_heads=1, num_experts=6, num_experts_per_tok=2, mlp_only_layers=(1,),
)  # fmt: skip
BALANCED = [Weight("blocks.{i}.mlp.router.balance_bias", "{i}.bias", "choice", (0, 2), buffer=True, draw="zeros")]


def state(rate: float = 0.0) -> State:
    """A model with biases for balancing, in float64: no choice of an expert hangs on a last bit."""
    model, rows = make(qwen, CONFIG).double(), [*qwen.weights(CONFIG), *BALANCED]
    for router in routers(model):
        router.balance_bias = torch.zeros(6)
    initialise(model, rows, 0.3, 0)
    optimizer = find("optimizer.kinds", "adamw").AdamW(lr=rate).build(model, rows)
    return State(model, rows, optimizer, 0, 0, History((Segment(0, {"a": 1.0}, {}),)))


def routers(model: torch.nn.Module) -> list[Router]:
    return [module for module in model.modules() if isinstance(module, Router)]


def batch() -> Batch:
    """Six samples; the second half of two is padding."""
    draw = np.random.Generator(np.random.Philox(0))
    tokens, targets = draw.integers(0, 60, (2, 6, 8))
    weights, documents = np.ones((6, 8), np.float32), np.zeros((6, 8), np.int32)
    documents[:2, 4:], weights[:2, 3:] = 1, 0
    return Batch(tokens, targets, weights, documents, np.arange(6), np.zeros((6, 8, 1), np.int64))


def step(made: State, balance: Balance, micro: int = 6) -> Result:
    steps = Steps(
        find("objective.kinds", "next_token").NextToken(), Vocabulary(60), Policy(torch.float32, "cpu"),
        documents=False, clip=0.0, z_loss=0.0, micro_batch=micro, forward=made.model, balance=balance,
    )  # fmt: skip
    return train_step(made, batch(), steps, 1.0)


def gradients(made: State) -> dict[str, Tensor]:
    return {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_step_is_balanced_the_same_however_it_is_cut(micro: int) -> None:
    balance = Balance(loss=0.3, z_loss=0.2, bias_rate=0.1)
    whole, parts = state(), state()
    one, two = step(whole, balance), step(parts, balance, micro)
    assert one.routing is not None and two.routing is not None
    for found, other in zip(one.routing, two.routing, strict=True):
        assert torch.allclose(found, other, rtol=1e-5)
    for name, value in gradients(whole).items():
        assert torch.allclose(gradients(parts)[name], value, rtol=1e-5, atol=1e-8), name
    assert [r.balance_bias.tolist() for r in routers(whole.model)] == [  # type: ignore[union-attr]
        r.balance_bias.tolist()
        for r in routers(parts.model)  # type: ignore[union-attr]
    ]


def test_the_gradient_is_that_of_the_published_losses() -> None:
    published = pytest.importorskip("transformers.models.mixtral.modeling_mixtral", reason="transformers not installed")
    plain, balanced, twin = state(), state(), state()
    step(plain, Balance(loss=0, z_loss=0)), step(balanced, Balance(loss=0.3, z_loss=0.2))
    logits: list[Tensor] = []
    for router in routers(twin.model):
        router.register_forward_hook(lambda module, given, choice: logits.append(choice.logits))
    twin.model(torch.from_numpy(batch().tokens))
    counted = torch.from_numpy(batch().documents == 0).double()  # what is no padding
    total = torch.zeros(())
    for layer in logits:
        sequences = [published.load_balancing_loss_func((layer[b],), 6, 2, attention_mask=counted[b]) for b in range(6)]
        z = (torch.logsumexp(layer, -1) ** 2 * counted).sum() / counted.sum()
        total = total + (0.3 * sum(sequences) / 6 + 0.2 * z) / len(logits)
    total.backward()
    assert len(logits) == 2
    for name, value in gradients(balanced).items():
        expected = gradients(plain)[name] + gradients(twin).get(name, torch.zeros(()))
        assert torch.allclose(value, expected, rtol=1e-4, atol=1e-7), name


def test_a_bias_moves_against_the_load_and_evens_it(tmp_path: Path) -> None:
    made, choices = state(), list[Choice]()
    router = routers(made.model)[0]
    router.register_forward_hook(lambda module, given, choice: choices.append(choice))
    before = step(made, Balance(0, 0, bias_rate=0.02)).routing
    counted = torch.from_numpy(batch().documents == 0)
    had = choices[0].experts[counted].flatten().bincount(minlength=6)
    assert before is not None and before.load[0].tolist() == had.tolist()
    mean = int(had.sum()) / 6
    expected = [0.02 if n < mean else -0.02 if n > mean else 0.0 for n in had.tolist()]
    assert router.balance_bias is not None and router.balance_bias.tolist() == pytest.approx(
        [float(e) for e in expected]
    )
    for _ in range(40):
        after = step(made, Balance(0, 0, bias_rate=0.02)).routing
    assert after is not None and after.load[0].std() < 0.5 * before.load[0].std()

    again = state()
    load(save(made, tmp_path, ""), again)
    found = routers(again.model)[0].balance_bias
    assert found is not None and found.abs().sum() > 0 and torch.equal(found, router.balance_bias)


def test_a_strong_loss_evens_the_load() -> None:
    loads = []
    for weight in (0.0, 1.0):
        made = state(rate=0.01)
        for _ in range(30):
            found = step(made, Balance(loss=weight, bias_rate=0)).routing
        assert found is not None
        loads.append(told(found, 40)["expert_load"])
    assert max(loads[1]) < min(1.6, max(loads[0]))


def test_what_is_told_is_what_was_chosen() -> None:
    found = step(state(), Balance(bias_rate=0))
    assert found.routing is not None and found.routed == 40
    skewed = found.routing._replace(load=torch.tensor([[80.0, 0, 0, 0, 0, 0], [20, 20, 10, 10, 10, 10]]))
    assert told(skewed, 40)["expert_load"] == pytest.approx([6.0, 1.5]) and told(skewed, 40)["experts_dead"] == [5, 0]
    entropy = told(replace(found).routing, 40)["router_entropy"]
    assert len(entropy) == 2 and all(0 < one < np.log(6) for one in entropy) and told(None, 40) == {}
