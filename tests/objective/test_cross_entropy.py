"""Twin: the chunked loss and its gradients equal torch's plain ones."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from pretrain.objective import cross_entropy as room
from pretrain.objective.cross_entropy import cross_entropy, token_logprobs
from pretrain.order.batch import IGNORE

MUTANTS = [
    ("src/pretrain/objective/cross_entropy.py", "1 + 2 * z_loss * log_z", "1 + z_loss * log_z"),
    ("src/pretrain/objective/cross_entropy.py", "-(weights * here)[:, None]", "-1 + 0 * weights[:, None]"),
    ("src/pretrain/objective/cross_entropy.py", "total += grad.T @ x", "total.copy_(grad.T @ x)"),
    ("src/pretrain/objective/cross_entropy.py", "beta=0 if first else 1", "beta=0"),
    ("src/pretrain/objective/cross_entropy.py", "beta=0 if first else 1", "beta=1"),
    ("src/pretrain/objective/cross_entropy.py", "total.copy_(grad.T @ x)", "total.add_(grad.T @ x)"),
    ("src/pretrain/objective/cross_entropy.py", "log_z = top + sums.log()", "log_z = sums.log()"),
    ("src/pretrain/objective/cross_entropy.py", "if len(hidden) else torch.zeros_like", ""),
    ("src/pretrain/objective/cross_entropy.py", "grads[2] += scores.sum(0)", "grads[2] = scores.sum(0)"),
    ("src/pretrain/objective/cross_entropy.py", "1 - (logits / softcap) ** 2", "1 - logits**2"),
    ("src/pretrain/objective/cross_entropy.py", "tanh_().mul_(softcap)", "tanh_()"),
    ("src/pretrain/objective/cross_entropy.py", "torch.where(targets == IGNORE, 0, weights)", "weights"),
]


@pytest.mark.parametrize("z_loss", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [7, 30, 10**6])
@pytest.mark.parametrize(("softcap", "bias"), [(None, False), (None, True), (1.5, False), (1.5, True)])
def test_equal_to_the_plain_loss(
    z_loss: float, chunk: int, softcap: float | None, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(room, "PIECE_LOGITS", min(chunk, 40))
    generator = torch.Generator().manual_seed(0)
    embed = nn.Embedding(11, 6, dtype=torch.float64)
    head = nn.Linear(6, 11, bias=bias, dtype=torch.float64)
    head.weight = embed.weight  # tied: both ends add to one gradient
    tokens = torch.randint(0, 11, (3, 5), generator=generator)
    targets = torch.randint(0, 11, (3, 5), generator=generator)
    targets[0, :2] = IGNORE
    weights = torch.rand(3, 5, generator=generator, dtype=torch.float64)

    loss = cross_entropy(embed(tokens).tanh(), head, targets, weights, z_loss=z_loss, softcap=softcap)
    (loss.total * 1.7).backward()
    ours = [p.grad for p in head.parameters()]
    head.zero_grad()

    logits = head(embed(tokens).tanh())
    logits = logits if softcap is None else softcap * (logits / softcap).tanh()
    kept = torch.where(targets == IGNORE, 0.0, weights)
    plain = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORE)
    total = (kept * (plain.view(3, 5) + z_loss * logits.logsumexp(-1) ** 2)).sum()
    (total * 1.7).backward()
    assert torch.allclose(loss.total, total, atol=1e-12) and torch.allclose(loss.count, kept.sum())
    assert all(torch.allclose(a, p.grad, atol=1e-12) for a, p in zip(ours, head.parameters(), strict=True))  # type: ignore[arg-type]
    if bias or softcap:
        return
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


def test_gradients_in_bf16_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CHUNK_LOGITS", 50)
    generator = torch.Generator().manual_seed(0)
    head, hidden = nn.Linear(8, 50, bias=False), torch.randn(1, 64, 8, generator=generator, requires_grad=True)
    targets, grads = torch.randint(0, 50, (1, 64), generator=generator), []
    for dtype in (torch.float32, torch.bfloat16):
        head.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            cross_entropy(hidden, head, targets, torch.ones(1, 64)).total.backward()
        assert head.weight.grad is not None and head.weight.grad.dtype is torch.float32
        grads.append(head.weight.grad.clone())
    assert (grads[0] - grads[1]).norm() < 0.01 * grads[0].norm()


def test_without_a_target_nothing_is_lost_or_learned() -> None:
    head, hidden = nn.Linear(8, 50), torch.randn(0, 8, requires_grad=True)
    loss = cross_entropy(hidden, head, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    loss.total.backward()
    assert loss.total == loss.count == 0 and head.weight.grad is not None and not head.weight.grad.any()


def test_logits_far_from_zero_and_from_each_other() -> None:
    """log Z is right to float32's last bits where some probability is too small to be a number."""
    head = nn.Linear(1, 4, bias=False)
    head.weight.data = torch.tensor([[300.0], [-300.0], [299.0], [0.0]])
    for target in range(4):
        hidden = torch.ones(1, 1, requires_grad=True)
        loss = cross_entropy(hidden, head, torch.tensor([target]), torch.ones(1), z_loss=1e-4)
        logits = head(hidden.detach().clone().requires_grad_()).double()
        plain = functional.cross_entropy(logits, torch.tensor([target])) + 1e-4 * logits.logsumexp(-1).square().sum()
        assert loss.total.item() == pytest.approx(plain.item(), rel=1e-5), target


PEAK = """
import re, sys, torch
from torch import nn
from torch.nn import functional
from pretrain.objective.cross_entropy import cross_entropy
def peak():  # getrusage's would be the parent's, where that held more before it started this process
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
torch.manual_seed(0)
hidden, head = torch.randn(1, 512, 32, requires_grad=True), nn.Linear(32, 128_256, bias=False)
targets, weights = torch.randint(0, 128_256, (1, 512)), torch.ones(1, 512)
before = peak()
if sys.argv[1] == "plain":
    loss = functional.cross_entropy(head(hidden)[0], targets[0], reduction="sum")
else:
    loss = cross_entropy(hidden, head, targets, weights).total
loss.backward()
print(peak() - before, float(hidden.grad.norm()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_memory_of_a_vocabulary_of_128k_does_not_grow_with_the_tokens() -> None:
    """Logits of 512 tokens are 0.24 GiB in float32; the plain loss holds them twice or more."""
    found = {}
    for which in ("plain", "chunked"):
        command = [sys.executable, "-c", PEAK, which]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        kib, norm = done.stdout.split()
        found[which] = (int(kib) / 2**20, float(norm))
    assert found["plain"][1] == pytest.approx(found["chunked"][1], rel=1e-4)
    assert found["chunked"][0] < 0.2 and found["plain"][0] > 0.45, found
