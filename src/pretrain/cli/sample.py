"""Writes text with a model, or fills in what a text hides: a run directory, a checkpoint, or a released folder."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from pretrain.tokenizer.tokenizer import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain sample`."""
    parser.add_argument("model", help="a run directory, a checkpoint, or a released folder")
    parser.add_argument("prompt", nargs="?", default="", help="what the text begins with, or where it hides tokens")
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
        return _fill(arguments, model, tokenizer)
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


def _fill(arguments: argparse.Namespace, model: "nn.Module", tokenizer: "Tokenizer") -> int:
    """Prints the likeliest tokens of each hidden place, by a model that sees both sides."""
    from pretrain.base.errors import UserError
    from pretrain.generate.fill import fill
    from pretrain.watch.console import printable

    mask = tokenizer.mask
    name = "" if mask is None else tokenizer.inner.id_to_token(mask)
    if mask is None or name not in arguments.prompt:
        what = "it was trained to fill in tokens from both sides, and cannot continue a text"
        raise UserError(what, where=arguments.model, expected=f"a prompt with {name or 'a mask token'} in it")
    ends = [] if tokenizer.end is None else [tokenizer.end]
    first, *rest = (tokenizer.encode(part).tolist() for part in arguments.prompt.split(name))
    found = fill(model, [*ends, *first, *(i for part in rest for i in (mask, *part)), *ends], mask)
    places = [[(tokenizer.decode([token]), share) for token, share in place] for place in found]
    if arguments.json:
        print(json.dumps({"prompt": arguments.prompt, "places": places}))
        return 0
    for place in places:
        print("  ".join(f"{printable(text.strip()) or repr(text)} {share:.0%}" for text, share in place))
    return 0
