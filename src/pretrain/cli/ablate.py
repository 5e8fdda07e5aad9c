"""The same small model on several cuts of data: which is better, and whether the seeds can tell."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.evaluate.compare import Ablation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain ablate`."""
    parser.add_argument(
        "recipes", nargs="+", metavar="RECIPE", help="two or more, then KEY=VALUE for all; the first is the baseline"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="members of each cut (3)")
    parser.add_argument("--name", help="its folder under runs/ (the recipes' names)")
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], metavar="FILE", help="text to score on, a file each"
    )
    parser.add_argument("--json", action="store_true", help="progress on standard error, then one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Runs all members, then prints the table and writes the page."""
    from pretrain.base.errors import UserError
    from pretrain.base.files import write
    from pretrain.recipe.read import load
    from pretrain.run.ablate import ablate
    from pretrain.watch.ablation_page import page
    from pretrain.watch.console import Console

    names = [one for one in arguments.recipes if "=" not in one]
    overrides = [one for one in arguments.recipes if "=" in one]
    cuts = [Path(name).stem for name in names]
    if len(set(cuts)) < len(cuts) or arguments.seeds < 1:
        what = f"two recipes are called {max(cuts, key=cuts.count)}" if arguments.seeds > 0 else "--seeds is below 1"
        raise UserError(what, expected="files of different names, and a seed or more")
    recipes = {cut: load(name, overrides) for cut, name in zip(cuts, names, strict=True)}
    folder = Path("runs") / (arguments.name or "-".join(cuts))
    stream = sys.stderr if arguments.json else sys.stdout
    with Console(stream, live=stream.isatty()) as console:
        found = ablate(
            recipes, folder, arguments.seeds, arguments.data, lambda said: print(said, file=stream), [console]
        )
    write(folder / "ablation.html", page(found))
    if arguments.json:
        print(json.dumps({**asdict(found), "verdicts": verdicts(found)}))
        return 0
    show(found)
    print(f"\nthe page is in {folder / 'ablation.html'}")
    return 0


def verdicts(found: "Ablation") -> dict[str, list[dict[str, object]]]:
    """The lines of each measure."""
    from pretrain.evaluate.compare import compare

    return {measure.name: [asdict(line) for line in compare(measure)] for measure in found.measures}


def show(found: "Ablation") -> None:
    """One table: a line a cut and measure."""
    from pretrain.evaluate.compare import compare

    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    print(f"\n{len(found.facts)} cuts, {seeds}, {found.budget:,} tokens each; scored on {found.held_out}")
    wide = max(len(one.cut) for one in found.facts) + 2
    print(f"{'cut':<{wide}}{'documents':>10}{'tokens':>12}{'epochs':>8}  {'score':<18}  against {found.facts[0].cut}")
    for measure in found.measures:
        print(f"{measure.name} ({'lower' if measure.lower_is_better else 'higher'} is better)")
        for one, line in zip(found.facts, compare(measure), strict=True):
            score = f"{line.mean:.4f}" + ("" if line.band is None else f" ± {line.band:.4f}")
            facts = f"{one.documents:>10,.0f}{one.tokens:>12,.0f}{one.epochs:>8.2f}"
            words = line.verdict if line.difference is not None else ""
            print(f"{one.cut:<{wide}}{facts}  {score:<18}  {words}".rstrip())
