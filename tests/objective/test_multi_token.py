"""Twin and ordeal: modules that look ahead, by the formula; saved, resumed, and left out of the release."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from batches import SIZE, VOCABULARY, batch
from folders import write_folder
from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.checkpoint.save import load, save
from pretrain.checkpoint.state import State
from pretrain.model.ahead import add_ahead
from pretrain.model.folder import make
from pretrain.model.weights import check, initialise
from pretrain.objective.kinds.multi_token import MultiToken
from pretrain.objective.objective import losses
from pretrain.order.batch import IGNORE
from pretrain.order.order import History, Segment
from pretrain.precision.policy import Policy
from pretrain.train.step import Result, Steps, train_step

MUTANTS = [
    (
        "src/pretrain/objective/kinds/multi_token.py",
        "np.where(same, batch.targets[:, k:], IGNORE)",
        "batch.targets[:, k:]",
    ),
    ("src/pretrain/objective/kinds/multi_token.py", "batch.weights[:, k:]", "batch.weights[:, :-k]"),
    ("src/pretrain/objective/kinds/multi_token.py", "self.weight / self.ahead)", "self.weight)"),
    ("src/pretrain/objective/kinds/multi_token.py", 'given.extra["targets"][:, k]', 'given.extra["targets"][:, 0]'),
    ("src/pretrain/model/ahead.py", "embedded[:, k:]", "embedded[:, : embedded.shape[1] - k]"),
    (
        "src/pretrain/model/ahead.py",
        "[self.norm_token(later), self.norm_hidden(x)]",
        "[self.norm_hidden(x), self.norm_token(later)]",
    ),
    ("src/pretrain/model/ahead.py", "return x, self.norm(x), aux", "return self.norm(x), self.norm(x), aux"),
    ("src/pretrain/model/decoder.py", "states.append(normed)", "states.append(x)"),
]
llama, nimble = find("model.families", "llama"), find("model.families", "nimble")
CONFIG = llama.Config(
    vocab_size=SIZE,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
OBJECTIVE = MultiToken(ahead=2, weight=0.6)


def state(seed: int = 0) -> State:
    model = make(llama, CONFIG).double()
    rows = [*llama.weights(CONFIG)]
    rows += add_ahead(model, rows, 2)
    model.double()
    initialise(model, rows, 0.3, seed)
    with torch.no_grad():  # fresh norms are one and hide errors
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    optimizer = find("optimizer.kinds", "muon").Muon().build(model, rows)
    return State(model, rows, optimizer, 0, 0, History((Segment(0, {"a": 1.0}, {}),)))


def test_targets_are_the_tokens_further_on_in_the_same_document() -> None:
    every = batch(6, 30, mean=6)
    made = OBJECTIVE.prepare(every, VOCABULARY)
    for i in range(6):
        text = [*every.tokens[i], every.targets[i, -1]]
        for k in (1, 2):
            for j in range(30):
                inside = j + k < 30 and every.documents[i, j] == every.documents[i, j + k]
                assert made.extra["targets"][i, k - 1, j] == (text[j + k + 1] if inside else IGNORE)
                if inside:
                    assert made.extra["weights"][i, k - 1, j] == pytest.approx(every.weights[i, j + k] * 0.3)
    assert np.array_equal(made.targets, every.targets)


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + CONFIG.rms_norm_eps).rsqrt() * weight


def test_loss_and_gradients_are_the_formulas() -> None:
    """h' = M [norm(h); norm(emb(t_{i+k}))], one block more, the head's own norm, the shared head: (21) to (25)."""
    made, every = state(), batch(4, 12)
    model, ready = made.model, OBJECTIVE.prepare(every, VOCABULARY)
    found = losses(model, model, OBJECTIVE, ready, documents=False)
    assert list(found) == ["next_token", "ahead_1", "ahead_2"]
    sum(loss.total for loss in found.values()).backward()  # type: ignore[union-attr]
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    tokens, seen = torch.from_numpy(every.tokens), list[object]()
    hook = model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))  # type: ignore
    h = model(tokens).hidden
    hook.remove()
    plain = functional.cross_entropy(
        model.head(h).flatten(0, 1), torch.from_numpy(every.targets).flatten(), reduction="none"
    )  # type: ignore
    total = (plain * torch.from_numpy(every.weights).flatten()).sum()
    for k, module in enumerate(model.ahead, 1):  # type: ignore
        shifted = torch.cat([tokens[:, k:], torch.zeros(4, k, dtype=torch.long)], 1)
        emb = model.embed.weight[shifted]  # type: ignore
        pair = torch.cat([norm(emb, module.norm_token.weight), norm(h, module.norm_hidden.weight)], -1)
        h = module.block(pair @ module.projection.weight.T, seen[0])[0]
        logits = norm(h, module.norm.weight) @ model.head.weight.T  # type: ignore
        for i in range(4):
            for j in range(12 - k):
                if every.documents[i, j] == every.documents[i, j + k]:
                    loss = -logits[i, j].log_softmax(-1)[every.targets[i, j + k]]
                    total = total + 0.3 * float(every.weights[i, j + k]) * loss
    total.backward()
    assert torch.allclose(sum(loss.total for loss in found.values()), total, rtol=1e-6)  # type: ignore
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.allclose(ours[name], parameter.grad, rtol=1e-5, atol=1e-6), name


def test_no_module_sees_what_it_predicts() -> None:
    model, tokens = state().model, torch.randint(0, 32, (1, 12))
    before = model(tokens, ahead=True)
    tokens[0, 7] = (tokens[0, 7] + 1) % 32
    after = model(tokens, ahead=True)
    for k in (1, 2):
        same = (before.ahead[k - 1] == after.ahead[k - 1]).all(-1)[0]
        assert same[: 7 - k].all() and not same[7 - k]
    assert not model(tokens).ahead


def step(made: State, number: int) -> Result:
    steps = Steps(
        OBJECTIVE, VOCABULARY, Policy(torch.float32, "cpu"), documents=True, clip=1.0, z_loss=0.0, micro_batch=2,
        forward=made.model,
    )  # fmt: skip
    return train_step(made, batch(4, 12, first=4 * number), steps, 1.0)


def test_modules_are_learned_saved_and_resumed(tmp_path: Path) -> None:
    made, other = state(), state(seed=1)
    before = {name: p.clone() for name, p in made.model.named_parameters()}
    step(made, 0)
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before) and sum(name.startswith("ahead.1.") for name in moved) == 13
    load(save(made, tmp_path, ""), other)
    ready = OBJECTIVE.prepare(batch(4, 12, first=4), VOCABULARY)
    whole = losses(made.model, made.model, OBJECTIVE, ready, documents=True)
    one, two = step(made, 1), step(other, 1)
    assert one.loss == two.loss
    for name, loss in whole.items():
        assert torch.allclose(one.losses[name], loss.mean), name
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), other.model.parameters(), strict=True))


def test_rows_are_the_module_and_the_release_is_the_plain_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    made = state()
    check(made.model, made.rows, CONFIG.axes())
    write_folder(tmp_path, llama, made.model, CONFIG, dtype="float32", end=None)
    assert len(load_file(tmp_path / "model.safetensors")) == 21
    config = nimble.Config(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    model = make(nimble, config)
    check(
        model,
        [*nimble.weights(config), *add_ahead(model, nimble.weights(config), 1)],
        config.axes(),
    )
    with pytest.raises(UserError, match="needs a decoder"):
        add_ahead(torch.nn.Linear(2, 2), [], 1)
    with pytest.raises(ValueError, match="at least 1"):
        replace(OBJECTIVE, ahead=0)
