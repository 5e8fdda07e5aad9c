"""Twin: the chunked loss and its gradients equal torch's plain ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pretrain.objective import cross_entropy as room
from pretrain.objective.cross_entropy import cross_entropy, token_logprobs
from pretrain.order.batch import IGNORE

MUTANTS = [
    ("src/pretrain/objective/cross_entropy.py", "1 + 2 * z_loss * log_z", "1 + z_loss * log_z"),
    ("src/pretrain/objective/cross_entropy.py", "-weight[:, None])", "-1 + 0 * weight[:, None])"),
    ("src/pretrain/objective/cross_entropy.py", "grad_head += grad.T @ x", "grad_head = grad.T @ x"),
    ("src/pretrain/objective/cross_entropy.py", "torch.where(targets == IGNORE, 0, weights)", "weights"),
]


@pytest.mark.parametrize("z_loss", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [7, 30, 10**6])
def test_equal_to_the_plain_loss(z_loss: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CHUNK_LOGITS", chunk)
    generator = torch.Generator().manual_seed(0)
    embed = nn.Embedding(11, 6, dtype=torch.float64)
    head = nn.Linear(6, 11, bias=False, dtype=torch.float64)
    head.weight = embed.weight  # tied: both ends add to one gradient
    tokens = torch.randint(0, 11, (3, 5), generator=generator)
    targets = torch.randint(0, 11, (3, 5), generator=generator)
    targets[0, :2] = IGNORE
    weights = torch.rand(3, 5, generator=generator, dtype=torch.float64)

    loss = cross_entropy(embed(tokens).tanh(), head, targets, weights, z_loss=z_loss)
    (loss.total * 1.7).backward()
    ours, embed.weight.grad = embed.weight.grad, None

    logits = head(embed(tokens).tanh())
    kept = torch.where(targets == IGNORE, 0.0, weights)
    plain = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORE)
    total = (kept * (plain.view(3, 5) + z_loss * logits.logsumexp(-1) ** 2)).sum()
    (total * 1.7).backward()
    assert torch.allclose(loss.total, total, atol=1e-12) and torch.allclose(loss.count, kept.sum())
    assert ours is not None and embed.weight.grad is not None
    assert torch.allclose(ours, embed.weight.grad, atol=1e-12)
    halves = [cross_entropy(embed(tokens[i]).tanh()[None], head, targets[i][None], weights[i][None]) for i in range(3)]
    assert torch.allclose((halves[0] + halves[1] + halves[2]).mean, (kept * plain.view(3, 5)).sum() / kept.sum())


def test_without_a_gradient_none_is_made_and_bf16_is_honoured() -> None:
    head, hidden = nn.Linear(8, 50, bias=False), torch.randn(2, 4, 8)
    targets = torch.arange(8).view(2, 4)
    with torch.no_grad():
        wide = cross_entropy(hidden, head, targets, torch.ones(2, 4))
        with torch.autocast("cpu", torch.bfloat16):
            narrow = cross_entropy(hidden, head, targets, torch.ones(2, 4))
    assert not wide.total.requires_grad and wide.total != narrow.total
    assert abs(wide.mean - narrow.mean) < 0.01
    assert torch.allclose(-token_logprobs(head(hidden), targets).sum(), wide.total)
