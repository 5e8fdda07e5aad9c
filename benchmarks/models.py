"""Forward and backward of our families beside transformers' own modules: tokens a second, and the ratio of CPU times.

About 30M parameters each, with the same weights, tokens, targets and settings (sdpa, no dropout; bf16 by autocast, as
training does); each side with the loss that its own users take. Blocks of steps alternate in one process on one thread;
the figure is the median ratio of the blocks' CPU times with its 95 % bootstrap interval: above 1, ours is faster.

    OMP_NUM_THREADS=1 python benchmarks/models.py [llama bert …] [--dtypes fp32 bf16] [--pairs 40] [--block 10]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from pretrain.base.errors import UserError
from pretrain.model.folder import load_folder
from pretrain.model.weights import parameters
from pretrain.objective.cross_entropy import cross_entropy
from pretrain.order.batch import IGNORE
from pretrain.precision.policy import Policy

SEQUENCE, HIDDEN_SHARE = 512, 0.15
SIZES: dict[str, int] = {"hidden_size": 384, "max_position_embeddings": SEQUENCE}
DECODER: dict[str, Any] = {
    **SIZES, "vocab_size": 32000, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64,
    "tie_word_embeddings": True,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {**DECODER, "intermediate_size": 1024, "num_hidden_layers": 11}),
    "gemma3": ("Gemma3ForCausalLM", {
        **DECODER, "intermediate_size": 1024, "num_hidden_layers": 11, "query_pre_attn_scalar": 64,
        "sliding_window": 256}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {
        **DECODER, "num_hidden_layers": 8, "intermediate_size": 1024, "moe_intermediate_size": 256, "num_experts": 8,
        "num_experts_per_tok": 2}),
    "bert": ("BertForMaskedLM", {
        **SIZES, "vocab_size": 30522, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 10}),
}  # fmt: skip


def sides(name: str, samples: int, policy: Policy) -> tuple[int, Callable[[], float], Callable[[], float]]:
    """Parameters, and a step of each side that returns its loss. Raises UserError where we have no such family."""
    architecture, table = FAMILIES[name]
    kind = getattr(transformers, architecture)
    config = kind.config_class(**table)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    theirs = kind(config).eval()  # no dropout on either side
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours, family, ours_config = load_folder(Path(folder))
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, table["vocab_size"], (samples, SEQUENCE), generator=draw)
    if "MaskedLM" in architecture:
        labels = torch.where(torch.rand(tokens.shape, generator=draw) < HIDDEN_SHARE, tokens, IGNORE)
    else:
        labels = tokens.roll(-1, 1)
        labels[:, -1] = IGNORE
    named = {"labels": labels} if "MaskedLM" in architecture else {"labels": tokens, "use_cache": False}

    def step(module: nn.Module, loss_of: Callable[[], Tensor]) -> float:
        for parameter in module.parameters():
            parameter.grad = None
        with policy.autocast():
            loss = loss_of()
        loss.backward()
        return float(loss.detach())

    def our_loss() -> Tensor:
        """As objective/kinds/masked.py and next_token.py have it."""
        hidden, chosen = ours(tokens).hidden, labels != IGNORE
        if "MaskedLM" in architecture:
            return cross_entropy(hidden[chosen], ours.head, labels[chosen], torch.ones(int(chosen.sum()))).mean  # type: ignore[arg-type]
        return cross_entropy(hidden, ours.head, labels, chosen.float()).mean  # type: ignore[arg-type]

    count = parameters(family.weights(ours_config), ours_config.axes())
    return count, lambda: step(ours, our_loss), lambda: step(theirs, lambda: theirs(tokens, **named).loss)


def compare(name: str, dtype: str, pairs: int, block: int, samples: int) -> None:
    """Prints a row."""
    policy = Policy(torch.bfloat16 if dtype == "bf16" else torch.float32, "cpu")
    try:
        count, *both = sides(name, samples, policy)
    except UserError as error:
        print(f"{name:<10} {dtype}  {error}")
        return
    losses = [[side() for _ in range(2)][-1] for side in both]
    assert abs(losses[0] - losses[1]) < (1e-4 if dtype == "fp32" else 0.03) * losses[1], losses
    seconds = np.zeros((pairs, 2))
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 else (1, 0):
            start = time.process_time()
            for _ in range(block):
                both[side]()
            seconds[pair, side] = time.process_time() - start
    ratios = seconds[:, 1] / seconds[:, 0]
    draw = np.random.Generator(np.random.Philox(1))
    low, high = np.quantile(np.median(draw.choice(ratios, (2000, pairs)), axis=1), [0.025, 0.975])
    speed = block * samples * SEQUENCE / np.median(seconds, axis=0)
    print(
        f"{name:<10} {dtype}  {count / 1e6:5.1f}M  {speed[0]:6.0f} ours  {speed[1]:6.0f} theirs, tokens / CPU s  "
        f"ratio {np.median(ratios):.3f}, 95 % in [{low:.3f}, {high:.3f}], {pairs} pairs",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], default=[])
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--block", type=int, default=10, help="steps")
    parser.add_argument("--samples", type=int, default=1, help="sequences in a step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.families or FAMILIES:
        for dtype in arguments.dtypes:
            compare(name, dtype, arguments.pairs, arguments.block, arguments.samples)


if __name__ == "__main__":
    main()
