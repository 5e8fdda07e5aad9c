"""What one of many ranks would hold and say in a step of a recipe: the code that trains, on numberless tensors."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from pretrain.cli.main import positive

if TYPE_CHECKING:
    from pretrain.plan.rehearse import Rehearsal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain plan`."""
    parser.add_argument("recipe", help="a file, a run directory, or the name of a recipe that ships")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="such as parallel.tp=8")
    parser.add_argument(
        "--ranks", type=positive, required=True, metavar="N", help="processes that would train together"
    )
    parser.add_argument("--rank", type=int, default=0, metavar="R", help="which of them this is (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Rehearses a step on one rank."""
    from pretrain.base.errors import UserError
    from pretrain.recipe.bind import bind_all
    from pretrain.recipe.read import load
    from pretrain.run.rehearsal import rehearsed

    recipe = load(arguments.recipe, arguments.overrides)
    bind_all(recipe)
    if not 0 <= arguments.rank < arguments.ranks:
        raise UserError(f"--rank {arguments.rank} of {arguments.ranks} ranks", expected=f"0 to {arguments.ranks - 1}")
    found = rehearsed(recipe, arguments.ranks, arguments.rank)
    print(json.dumps(table(found)) if arguments.json else "\n".join(lines(found)))
    return 0


def table(found: "Rehearsal") -> dict[str, object]:
    """As plain JSON."""
    messages = [
        {"kind": kind, "along": along, "number": said.number, "bytes": said.bytes}
        for (kind, along), said in found.messages.items()
    ]
    return {**asdict(found), "layout": asdict(found.layout), "messages": messages}


def lines(found: "Rehearsal") -> list[str]:
    """As a page."""
    from pretrain.base.units import show_bytes, show_count

    out = [
        f"{found.layout.ranks:,} ranks ({found.layout}); rank {found.rank}, one step, {found.seconds:.1f} CPU-s here",
        f"holds {show_count(found.numbers)} weights: {show_bytes(found.weight_bytes)}, their gradients as much, "
        f"optimizer {show_bytes(found.optimizer_bytes)}",
        f"most at once {show_bytes(found.peak_bytes)}, activations and gathered weights included",
        "",
        f"{'says':<16}{'along':<14}{'messages':>10}{'bytes of whole tensors':>26}",
    ]
    for (kind, along), said in found.messages.items():
        out.append(f"{kind:<16}{along:<14}{said.number:>10,}{show_bytes(said.bytes):>26}")
    return out
