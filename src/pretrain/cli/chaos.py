"""Runs a recipe without and with a fault, on real processes, and says whether it ended as it should."""

import argparse
import json
import sys
from pathlib import Path

from pretrain.cli.main import positive

FOLDER = "chaos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain chaos`."""
    parser.add_argument("recipe", nargs="?", help="a file or the name of a recipe that ships: a small one")
    parser.add_argument(
        "scenario", nargs="*", default=[], metavar="SCENARIO | KEY=VALUE", help="which (all, if not said); overrides"
    )
    parser.add_argument(
        "--ranks", type=positive, default=2, metavar="N", help="processes that train together, 2 or more"
    )
    parser.add_argument("--list", action="store_true", help="only say which scenarios there are")
    parser.add_argument("--json", action="store_true", help="progress on standard error, then one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """A verdict a line; 0 if all hold, 1 if one does not."""
    from pretrain.base.errors import MachineError, UserError, nearest
    from pretrain.faults.judge import Verdict, judge
    from pretrain.faults.scenarios import SCENARIOS, Chaos
    from pretrain.recipe.read import load

    if arguments.list:
        print("\n".join(f"{name:<18}{one.what}" for name, one in SCENARIOS.items()))
        return 0
    if arguments.recipe is None:
        raise UserError("no recipe", expected="pretrain chaos RECIPE [SCENARIO] [KEY=VALUE …]")
    overrides = [one for one in arguments.scenario if "=" in one]
    names = [one for one in arguments.scenario if "=" not in one] or list(SCENARIOS)
    for name in names:
        if name not in SCENARIOS:
            raise UserError(f"no scenario {name!r}", expected="one of --list", near=nearest(name, SCENARIOS))
    if arguments.ranks < 2:
        raise UserError(f"--ranks {arguments.ranks}", expected="2 or more, of which one can fail")
    recipe = load(arguments.recipe, overrides)
    often = recipe.train.checkpoint_every
    if not often or (recipe.train.steps is not None and recipe.train.steps < 3 * often):
        what = f"train.checkpoint_every = {often}: too few checkpoints that a run could go on from"
        raise UserError(
            what, where=str(recipe.origin("train.checkpoint_every")), expected="a third of its steps or less"
        )
    if recipe.run.checkpoints is not None:
        raise UserError("run.checkpoints is said", expected="none: what is damaged here lies in a folder of its own")
    if not Path("/proc/self/task").exists():
        raise MachineError("this system has no /proc, where the processes of ranks are found")
    file = Path(arguments.recipe)
    source = str(file.absolute()) if file.exists() else arguments.recipe
    chaos = Chaos(Path(FOLDER).absolute(), source, overrides, arguments.ranks, recipe.layers.origins)
    verdicts = []
    for name in names:
        one = SCENARIOS[name]
        plain = chaos.plain(one.layout)
        try:
            verdict = judge(name, one.expected, plain, chaos.hurt(name))
        except (UserError, MachineError) as error:  # the other scenarios may go well
            verdict = Verdict(name, "", 0.0, "", (str(error),))
        print(verdict.text, file=sys.stderr if arguments.json else sys.stdout, flush=True)
        verdicts.append(verdict)
    if arguments.json:
        table = [
            {
                "scenario": one.scenario,
                "done": SCENARIOS[one.scenario].what,
                "named": one.named,
                "lost_seconds": one.lost_seconds,
                "weights": one.weights,
                "wrong": one.wrong,
            }
            for one in verdicts
        ]
        print(json.dumps({"folder": FOLDER, "scenarios": table}))
    return 0 if all(not one.wrong for one in verdicts) else 1
