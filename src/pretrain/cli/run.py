"""Runs every stage of a recipe whose inputs changed, and says which were reused and why the others ran."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.cli.main import positive

if TYPE_CHECKING:
    from pretrain.parallel.launch import Rule
    from pretrain.recipe.recipe import Recipe

STAGES = "corpus, tokenizer, tokens, train, evaluate, release"  # as words: their code takes a second to import


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain run`."""
    parser.add_argument("recipe", help="a file, a run directory, or the name of a recipe that ships")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="such as train.steps=200")
    parser.add_argument("--only", metavar="STAGE", help=f"one of {STAGES}")
    parser.add_argument(
        "--from", dest="first", metavar="STAGE", help="the first stage to run; those before are used as they are"
    )
    parser.add_argument("--to", dest="last", metavar="STAGE", help="the last stage to run")
    parser.add_argument("--json", action="store_true", help="progress on standard error, then one JSON object")
    parser.add_argument(
        "--ranks", type=positive, metavar="N", help="processes that train together here: one for each GPU, if not said"
    )
    parser.add_argument(
        "--nodes", default="1", metavar="N", help="machines that do so, or fewest:most (see docs/clusters.md)"
    )
    parser.add_argument("--meet", default="localhost:0", metavar="HOST:PORT", help="where they find each other")
    parser.add_argument("--dry", action="store_true", help="only say what would run, and why")


def run(arguments: argparse.Namespace) -> int:
    """Executes and closes with a summary."""
    from pretrain.cli.main import program
    from pretrain.events.directory import RunDirectory
    from pretrain.events.kinds import Event, Score, Stage
    from pretrain.events.read import all_of, read
    from pretrain.parallel import launch
    from pretrain.recipe.read import load
    from pretrain.run.stages import execute
    from pretrain.watch.console import Console, summary

    recipe = load(arguments.recipe, arguments.overrides)
    processes = launch.accelerators() if arguments.ranks is None else arguments.ranks
    many = processes > 1 or launch.bounds(arguments.nodes)[1] > 1
    if many and not launch.started() and not arguments.dry:
        sys.stdout.flush()
        return launch.start(processes, sys.argv[1:], _rule(recipe), arguments.nodes, arguments.meet)
    limits = {"only": arguments.only, "first": arguments.first, "last": arguments.last}
    stream, stages = sys.stderr if arguments.json else sys.stdout, list[dict[str, str]]()

    def note(event: Event) -> None:
        if isinstance(event, Stage) and event.state != "started":
            stages.append({"name": event.name, "state": event.state, "why": event.why})

    if launch.started():
        launch.end_with_agent()
    directory = Path("runs").absolute() / recipe.run.name
    if launch.rank() > 0:
        if not arguments.dry:
            execute(recipe, directory, **limits)
        return 0
    with Console(stream, live=stream.isatty()) as console:
        console.recall(read(RunDirectory(directory)))
        ranks = max(processes, 1) * launch.bounds(arguments.nodes)[1] if arguments.dry else None
        execute(recipe, directory, dry=arguments.dry, ranks=ranks, subscribers=[console, note], **limits)
    if arguments.json:
        scores = [
            {"step": one.step, "name": one.name, "value": one.value, "unit": one.unit, "split": one.split}
            for one in all_of(RunDirectory(directory), Score)
        ]
        print(json.dumps({"run": str(directory), "stages": stages, "scores": scores}))
    elif not arguments.dry:
        print(summary(directory, program()))
    return 0


def _rule(recipe: "Recipe") -> "Rule":
    """When ranks are started again, and what the log then says."""
    from pretrain.events.directory import RunDirectory
    from pretrain.parallel.launch import Failure, Rule
    from pretrain.run.restarts import restarted, saved_step
    from pretrain.watch.console import line

    run = RunDirectory(Path("runs").absolute() / recipe.run.name)

    def told(failure: Failure) -> None:
        print(line(restarted(run, failure)), flush=True)

    return Rule(recipe.run.restarts, recipe.run.notice, lambda: saved_step(run), told)
