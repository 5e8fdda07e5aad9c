"""What other thresholds would keep, from the measures of a corpus that was made: nothing is run again."""

import argparse
import json
from pathlib import Path

FEW = 200  # documents in a sample, below which its error is as large as what it says


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain recut`."""
    parser.add_argument("recipe", help="a file, or the name of a recipe that ships, whose corpus was made here")
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="corpus.steps.gopher_quality.min_words=100")
    parser.add_argument("--exact", action="store_true", help="every document, not the sample that all steps measured")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints what would be kept, lost and gained."""
    from pretrain.base.errors import UserError
    from pretrain.base.units import show_bytes
    from pretrain.corpus.parts import Steps
    from pretrain.corpus.recut import recut
    from pretrain.recipe.read import load
    from pretrain.recipe.recipe import tree
    from pretrain.run.find import corpus_made_by

    now, then = load(arguments.recipe), load(arguments.recipe, arguments.overrides)
    cut = corpus_made_by(now, arguments.recipe, Path("store").absolute())
    for name, value in tree(now).items():
        if name != "corpus" and tree(then)[name] != value:
            raise UserError(f"{name} has no part in a corpus", expected="bounds of corpus.steps")
    steps = Steps(cut.parent / "steps")
    found = recut(cut, steps, now.corpus, then.corpus, now.run.seed, exact=arguments.exact)
    if arguments.json:
        estimates = {"kept_then": found.kept_then, "lost": found.scaled(found.lost)}
        estimates["gained"] = found.scaled(found.gained)
        names = ("share", "documents", "kept", "unknown", "bytes_kept", "bytes_then")
        table = {name: getattr(found, name) for name in names} | {name: vars(one) for name, one in estimates.items()}
        print(json.dumps({**table, "samples": found.samples}))
        return 0
    basis = "all documents" if found.share == 1 else f"a sample of {found.documents:,} documents ({found.share:.1%})"
    print(f"from {basis}, measured by every step:")
    print(f"  kept now   {found.kept:,} documents")
    print(f"  kept then  {found.kept_then} documents")
    for name, count in (("lost", found.lost), ("gained", found.gained)):
        print(f"  {name:<10} {found.scaled(count)} documents")
        for url in found.samples[name]:
            print(f"    {url}")
    print(f"  text       {show_bytes(found.bytes_kept)} → {show_bytes(found.bytes_then)}")
    if found.share < 1 and found.documents < FEW:
        print("  the sample is too small to say much: --exact, or corpus.measure=all in the recipe before the next run")
    if found.unknown:
        print(
            f"  {found.unknown:,} more would pass but were not measured further; corpus.measure=all measures everything"
        )
    return 0
