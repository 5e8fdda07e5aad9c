"""Tokens a second and MFU of a 1B Llama in bf16 on one GPU, through the whole training loop, beside what is published.

Llama 3.2 1B's shape, sequences of 8,192 tokens, two in a micro-batch. FLOP a token are 6 a matrix weight, the head
counted once, and causal attention halved (`model/count.py`); torchtitan counts attention whole, so its MFU of the same
tokens a second would read higher: both are printed. Beside them stands what torchtitan published for Llama 3.1 8B on 8
H100 (benchmarks/llama3_h100_202412_torchtitan.md of its repository, 500 W): 5,762 tokens/s a GPU, 6,667 compiled, 33 %
to 39 % of the vendor's peak. Without a GPU a small model runs, so that the script is known to.

    python benchmarks/device.py --steps 30
    python benchmarks/device.py --steps 30 --precision fp8 --recompute selective
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from loop import random_rows
from pretrain.base.extension import find
from pretrain.base.units import show_count
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Step
from pretrain.model.count import training_flops_per_token
from pretrain.model.folder import make
from pretrain.model.narrow import narrowed
from pretrain.model.weights import initialise, parameters
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.precision.policy import choose
from pretrain.recipe.schema import Leaf
from pretrain.recipe.train import Schedule, Train
from pretrain.train import machine
from pretrain.train.clock import Clock
from pretrain.train.loop import Place, train
from pretrain.train.recompute import recompute
from pretrain.train.step import Steps

WARM = 10  # steps that are not counted: compiling, clocks
BILLION = dict(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, tie_word_embeddings=True
)
SMALL = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--samples", type=int, default=2, help="sequences in a step")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--recompute", default="none", choices=["none", "selective", "full"])
    parser.add_argument("--eager", action="store_true")
    arguments = parser.parse_args()
    where = machine.device()
    gpu = where == "cuda"
    sequence, vocab, sizes = (8192, 128256, BILLION) if gpu else (512, 8192, SMALL)
    llama = find("model.families", "llama")
    config = llama.Config(vocab_size=vocab, num_key_value_heads=sizes["num_attention_heads"] // 4, **sizes)
    table, axes = llama.weights(config), config.axes()
    model = make(llama, config)
    initialise(model, table, 0.02, 0)
    model.to(where)
    policy = choose(arguments.precision, where)
    narrowed(model, table, axes, policy)
    recompute(model, arguments.recompute)
    told: list[Step] = []

    def hear(event: Event) -> None:
        if isinstance(event, Step):
            told.append(event)

    with tempfile.TemporaryDirectory() as name:
        rows = random_rows(Path(name) / "tokens", (arguments.steps + WARM) * arguments.samples, sequence, vocab)
        history = History((Segment(0, {"random": 1.0}, {}),))
        data = Data(Order(0, {"random": len(rows)}, history), {"random": rows}, sequence)
        state = State(model, table, find("optimizer.kinds", "adamw").AdamW().build(model, table), 0, 0, history, axes)
        compiled = model if arguments.eager or not gpu else torch.compile(model)
        steps = Steps(
            find("objective.kinds", "next_token").NextToken(), Vocabulary(vocab), policy, documents=False, clip=1.0,
            z_loss=0.0, micro_batch=arguments.samples, forward=compiled, clock=Clock(where),
        )  # fmt: skip
        section = Train(
            optimizer=Leaf(("optimizer.kinds",), "adamw"), schedule=Schedule("constant", warmup=0.0),
            batch=arguments.samples * sequence, sequence=sequence, checkpoint_every=0,
        )  # fmt: skip
        flops = training_flops_per_token(table, axes, config.num_hidden_layers, sequence)
        peak = machine.matmul_flops_per_second(where, policy.compute)
        vendor = machine.vendor_flops_per_second(machine.device_name(where), policy.name)
        place = Place(Path(name) / "checkpoints", "", hear, flops, peak, vendor_flops_per_second=vendor)
        start = time.perf_counter()
        train(state, data, section, arguments.steps + WARM, steps, place)
    seconds = sorted(step.step_seconds for step in told[WARM:])[arguments.steps // 2]
    rate = section.batch / seconds
    whole = flops + 6 * config.num_hidden_layers * axes["q"][0] * axes["q"][1] * sequence
    print(
        f"{machine.describe()}: {show_count(parameters(table, axes))} parameters, {policy.name}, {arguments.recompute}"
    )
    print(f"{rate:,.0f} tokens/s (median of {arguments.steps} steps; {time.perf_counter() - start:.0f} s in all)")
    for name, most in (("measured", peak), ("vendor's", vendor)):
        if most:
            print(
                f"{rate * flops / most:.1%} of the {name} peak; {rate * whole / most:.1%} with attention counted whole"
            )
    print("torchtitan, Llama 3.1 8B, 8 H100, bf16: 5,762 tokens/s a GPU, 6,667 compiled; 33 % to 39 % of the vendor's")


if __name__ == "__main__":
    main()
