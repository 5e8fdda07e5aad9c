"""Oracle and closed form: updates equal torch's optimizers', schedules meet their corners, states come back."""

import pytest
import torch
from torch import Tensor

from pretrain.base.extension import find
from pretrain.model.folder import make
from pretrain.model.weights import Weight, initialise
from pretrain.optimizer.optimizer import groups
from pretrain.optimizer.schedule import factor
from pretrain.recipe.train import Schedule

MUTANTS = [
    ("src/pretrain/optimizer/kinds/muon.py", "1 - o.momentum)", "o.momentum)"),
    ("src/pretrain/optimizer/kinds/muon.py", "max(1, rows / columns) ** 0.5", "1"),
    ("src/pretrain/optimizer/schedule.py", "(steps - step) / decay", "step / decay"),
]
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=31,
    hidden_size=16,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
ROWS = llama.weights(CONFIG)


def model() -> torch.nn.Module:
    made = make(llama, CONFIG)
    initialise(made, ROWS, 0.2, 0)
    return made


def push(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_adamw_is_torchs() -> None:
    ours, theirs = model(), model()
    kinds = find("optimizer.kinds", "adamw")
    mine = kinds.AdamW(lr=0.01, weight_decay=0.3).build(ours, ROWS)
    vectors = set(groups(theirs, ROWS)["vector"])
    split = [[p for n, p in theirs.named_parameters() if (n in vectors) is wanted] for wanted in (False, True)]
    tables = [{"params": split[0], "weight_decay": 0.3}, {"params": split[1], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(tables, lr=0.005, betas=(0.9, 0.95), foreach=False, fused=False)
    for seed in range(4):
        push(ours, seed), push(theirs, seed)
        mine.step(0.5), reference.step()
    for name, value in weights(ours).items():
        assert torch.allclose(value, theirs.get_parameter(name), atol=1e-6), name


def test_muon_is_torchs_on_the_matrices() -> None:
    ours, theirs = model(), model()
    kinds = find("optimizer.kinds", "muon")
    mine = kinds.Muon(lr=0.02, weight_decay=0.1).build(ours, ROWS)
    matrices = groups(theirs, ROWS)["matrix"]
    reference = torch.optim.Muon(list(matrices.values()), lr=0.02, weight_decay=0.1, momentum=0.95)
    for seed in range(3):
        push(ours, seed), push(theirs, seed)
        mine.step(1.0), reference.step()
    for name, value in matrices.items():
        step = (value - model().get_parameter(name)).abs().max()
        assert (ours.get_parameter(name) - value).abs().max() < 0.03 * step, name  # torch's runs in bf16
    assert not torch.equal(ours.get_parameter("embed.weight"), model().get_parameter("embed.weight"))


def test_muon_takes_each_expert_by_itself() -> None:
    """Twin: the same matrices as parameters of their own."""
    kinds = find("optimizer.kinds", "muon")
    stack = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(0))
    whole, apart = torch.nn.Module(), torch.nn.Module()
    for module in (whole, apart):
        module.register_parameter("norm", torch.nn.Parameter(torch.ones(2)))
    whole.register_parameter("stack", torch.nn.Parameter(stack.clone()))
    for e, matrix in enumerate(stack):
        apart.register_parameter(f"m{e}", torch.nn.Parameter(matrix.clone()))
    options = kinds.Muon(lr=0.1, weight_decay=0.1)
    one = options.build(whole, [Weight("norm", "norm", "embed"), Weight("stack", "stack", "expert mlp embed")])
    two = options.build(
        apart, [Weight("norm", "norm", "embed"), *[Weight(f"m{e}", f"m{e}", "mlp embed") for e in range(3)]]
    )
    for seed in range(2):
        gradient = torch.randn(stack.shape, generator=torch.Generator().manual_seed(seed))
        whole.get_parameter("stack").grad = gradient
        for e in range(3):
            apart.get_parameter(f"m{e}").grad = gradient[e].clone()
        one.step(1.0), two.step(1.0)
    found = torch.stack([apart.get_parameter(f"m{e}").detach() for e in range(3)])
    assert torch.allclose(whole.get_parameter("stack").detach(), found, atol=1e-6)
    assert not torch.allclose(found, stack, atol=0.05)


@pytest.mark.parametrize("shape", [(3, 20, 20), (2, 12, 30), (2, 30, 12)])
def test_orthogonal_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = find("optimizer.kinds", "muon").orthogonal(x, 5)
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.25 and values.median() > 0.65
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(found.flatten(1), (u @ v).flatten(1)).min() > 0.95


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_saved_state_goes_on_bit_for_bit(name: str) -> None:
    kinds = find("optimizer.kinds", name)
    kind = kinds.AdamW() if name == "adamw" else kinds.Muon()
    straight, stopped = model(), model()
    one, two = kind.build(straight, ROWS), kind.build(stopped, ROWS)
    for seed in range(2):
        push(straight, seed), push(stopped, seed)
        one.step(1.0), two.step(1.0)
    saved = {key: value.clone() for key, value in two.state().items()}
    again = model()
    again.load_state_dict(stopped.state_dict())
    three = kind.build(again, ROWS)
    three.load(saved)
    push(straight, 9), push(again, 9)
    one.step(0.7), three.step(0.7)
    assert all(torch.equal(value, weights(again)[key]) for key, value in weights(straight).items())


def test_schedules_meet_their_corners() -> None:
    wsd = Schedule("wsd", warmup=0.1, decay=0.2, final=0.1)
    assert [factor(wsd, step, 100) for step in (0, 9, 10, 50, 80)] == pytest.approx([1 / 11, 10 / 11, 1, 1, 1])
    assert factor(wsd, 90, 100) == pytest.approx(0.55) and factor(wsd, 100, 100) == pytest.approx(0.1)
    cosine = Schedule("cosine", warmup=0.0, decay=0.0, final=0.0)
    assert [factor(cosine, step, 100) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert factor(Schedule("constant", warmup=0.0), 70, 100) == 1
