"""CPU time to nanoGPT's loss on tiny Shakespeare, its published CPU setting beside ours.

nanoGPT: 4 layers, width 128, 4 heads, context 64, batch 12, AdamW 1e-3 to 1e-4 over 2,000 steps, written anew here in
plain PyTorch. Ours: the family `nimble` of the same width, depth and 0.8M matrix weights, and 2.1M in embeddings of
hashed pairs and triples of characters (looked up, not multiplied), Muon, bf16, through pretrain's own data, step and
loop. One process, one thread; evaluation on the whole validation split is not counted.

    OMP_NUM_THREADS=1 python benchmarks/shakespeare.py tinyshakespeare.txt --seeds 3
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.precision.policy import choose
from pretrain.recipe.schema import Leaf
from pretrain.recipe.train import Schedule, Train
from pretrain.shards.write import ShardWriter
from pretrain.train.loop import Place, train
from pretrain.train.step import Steps

WIDTH, LAYERS, HEADS, CONTEXT, BATCH, STEPS = 128, 4, 4, 64, 12, 2000
BUCKETS = 8192


class PlainBlock(nn.Module):
    """GPT-2's block without biases, as nanoGPT's configuration has it."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in self.qkv(self.ln1(x)).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.ln2(x))))


class PlainGPT(nn.Module):
    """nanoGPT's model at its CPU setting."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(PlainBlock() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, vocab, bias=False)
        self.head.weight = self.token.weight
        for name, p in self.named_parameters():
            if p.dim() > 1:
                std = 0.02 / math.sqrt(2 * LAYERS) if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(p, 0.0, std)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def nanogpt(train_ids: Tensor, vocab: int, seed: int, rate: float) -> tuple[Callable[[Tensor], Tensor], float]:
    """A trained model and its CPU seconds."""
    torch.manual_seed(seed)
    model = PlainGPT(vocab)
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1}]
    groups.append({"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0})
    adamw = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
    start = time.process_time()
    for step in range(STEPS):
        part = max(step - 100, 0) / (STEPS - 100)
        scale = (step + 1) / 101 if step < 100 else 0.1 + 0.45 * (1 + math.cos(math.pi * part))
        for group in adamw.param_groups:
            group["lr"] = rate * scale
        at = torch.randint(len(train_ids) - CONTEXT, (BATCH,))
        x = torch.stack([train_ids[i : i + CONTEXT] for i in at.tolist()])
        y = torch.stack([train_ids[i + 1 : i + 1 + CONTEXT] for i in at.tolist()])
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
    return model, time.process_time() - start


def ours(train_ids: Tensor, vocab: int, seed: int, total: int) -> tuple[Callable[[Tensor], Tensor], float]:
    """A trained model and its CPU seconds, shards and shuffling included."""
    nimble = find("model.families", "nimble")
    config = nimble.Config(
        vocab_size=vocab,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        gram_buckets=BUCKETS,
    )
    start = time.process_time()
    rows = nimble.weights(config)
    model = make(nimble, config)
    initialise(model, rows, config.initializer_range, seed)
    history = History((Segment(0, {"plays": 1.0}, {}),))
    optimizer = find("optimizer.kinds", "muon").Muon(lr=0.02, adamw_lr=1e-2).build(model, rows)
    section = Train(
        optimizer=Leaf(("optimizer.kinds",), "muon"),
        schedule=Schedule("wsd", warmup=0.0, decay=0.7),
        batch=BATCH * CONTEXT,
        sequence=CONTEXT,
        checkpoint_every=0,
        log_every=10**9,
    )
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder) / "tokens", vocab_size=vocab, shard_tokens=2**24, end=None)
        writer.add("0" * 32, train_ids.numpy())
        writer.close()
        windows = Rows(Path(folder) / "tokens", CONTEXT)
        data = Data(Order(seed, {"plays": len(windows)}, history), {"plays": windows}, CONTEXT)
        steps = Steps(
            find("objective.kinds", "next_token").NextToken(), Vocabulary(vocab), choose("auto", "cpu"),
            documents=False, clip=1.0, z_loss=0.0, micro_batch=BATCH, forward=model,
        )  # fmt: skip
        place = Place(Path(folder) / "checkpoints", "", lambda event: None, 1.0, 1.0)
        train(State(model, rows, optimizer, 0, 0, history), data, section, total, steps, place)
    return model.logits, time.process_time() - start  # type: ignore[return-value]


@torch.no_grad()
def whole_loss(logits: Callable[[Tensor], Tensor], ids: Tensor) -> float:
    """Nats a character over the whole validation split, in windows of the context."""
    count = (len(ids) - 1) // CONTEXT
    x, y = ids[: count * CONTEXT].view(-1, CONTEXT), ids[1 : count * CONTEXT + 1].view(-1, CONTEXT)
    parts = [
        functional.cross_entropy(logits(a).flatten(0, 1), b.flatten(), reduction="sum")
        for a, b in zip(x.split(128), y.split(128), strict=True)
    ]
    return float(sum(parts)) / y.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=125, help="of ours")
    parser.add_argument("--rate", type=float, default=1e-3, help="nanoGPT's learning rate; 1e-3 is the published one")
    parser.add_argument("--only", choices=["nanogpt", "ours"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = arguments.file.read_text("utf-8")
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor(np.array([letters[letter] for letter in text]))
    cut = int(0.9 * len(ids))
    seconds: dict[str, list[float]] = {"nanogpt": [], "ours": []}
    for seed in range(arguments.seeds):
        for side in seconds:
            if arguments.only in (None, side):
                call = nanogpt if side == "nanogpt" else ours
                setting = arguments.rate if side == "nanogpt" else arguments.steps
                model, spent = call(ids[:cut], len(letters), seed, setting)  # type: ignore[operator]
                seconds[side].append(spent)
                print(f"{side:<8} seed {seed}: {spent:6.1f} CPU s, loss {whole_loss(model, ids[cut:]):.4f}", flush=True)
    if all(seconds.values()):
        print(f"ratio of median CPU seconds: {np.median(seconds['nanogpt']) / np.median(seconds['ours']):.2f}")


if __name__ == "__main__":
    main()
