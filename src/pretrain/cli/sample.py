"""Writes text with a model: from a run directory, a checkpoint, or a released folder."""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain sample`."""
    parser.add_argument("model", help="a run directory, a checkpoint, or a released folder")
    parser.add_argument("prompt", nargs="?", default="", help="what the text begins with")
    parser.add_argument("--tokens", type=int, default=200, help="at most (200)")
    parser.add_argument("--samples", type=int, default=1, help="how many texts (1)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 takes the likeliest token each time (0.7)")
    parser.add_argument("--top-k", type=int, default=0, help="draw from the likeliest so many; 0: all (0)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="draw from the likeliest that hold this probability (1.0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints prompt and continuation."""
    from pretrain.base.errors import UserError
    from pretrain.generate.sample import sample
    from pretrain.run.open import objective_of, open_model
    from pretrain.watch.console import printable

    if (
        arguments.tokens < 1
        or arguments.samples < 1
        or min(arguments.temperature, arguments.top_k) < 0
        or not 0 < arguments.top_p <= 1
    ):
        raise UserError(
            "a sampling option is out of range", expected="tokens, samples ≥ 1, temperature, top-k ≥ 0, 0 < top-p ≤ 1"
        )
    model, _, _, tokenizer = open_model(arguments.model)
    if not objective_of(arguments.model)[1]:
        what = "it was trained to fill in tokens from both sides, and cannot continue a text"
        raise UserError(what, where=arguments.model, expected="a model with a causal objective")
    start = [] if tokenizer.end is None else [tokenizer.end]
    ids = [*start, *tokenizer.encode(arguments.prompt).tolist()] or [0]
    options = {"temperature": arguments.temperature, "top_k": arguments.top_k, "top_p": arguments.top_p}
    made = sample(
        model, ids, copies=arguments.samples, tokens=arguments.tokens, seed=arguments.seed, end=tokenizer.end, **options
    )
    texts = [tokenizer.decode(one) for one in made]
    if arguments.json:
        print(json.dumps({"prompt": arguments.prompt, "seed": arguments.seed, "texts": texts}))
        return 0
    for i, text in enumerate(texts):
        if i:
            print("-" * 40)
        print(printable(arguments.prompt + text))
    return 0
