"""Runs every stage of a recipe whose inputs changed, and says which were reused and why the others ran."""

import argparse
from pathlib import Path

from pretrain.run.stages import STAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain run`."""
    parser.add_argument("recipe", help="a file, a run directory, or the name of a recipe that ships")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as train.steps=200")
    parser.add_argument("--only", metavar="STAGE", help=f"one of {', '.join(STAGES)}")
    parser.add_argument(
        "--from", dest="first", metavar="STAGE", help="the first stage to run; those before are used as they are"
    )
    parser.add_argument("--to", dest="last", metavar="STAGE", help="the last stage to run")
    parser.add_argument("--dry", action="store_true", help="only say what would run, and why")


def run(arguments: argparse.Namespace) -> int:
    """Executes and closes with a summary."""
    from pretrain.recipe.read import load
    from pretrain.run.stages import execute
    from pretrain.watch.console import Console, summary

    recipe = load(arguments.recipe, arguments.overrides)
    limits = {"only": arguments.only, "first": arguments.first, "last": arguments.last}
    with Console() as console:
        directory = execute(recipe, dry=arguments.dry, subscribers=[console], **limits)
    if not arguments.dry:
        print(summary(Path(directory)))
    return 0
