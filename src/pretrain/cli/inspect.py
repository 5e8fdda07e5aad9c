"""What a corpus holds and where it lost the rest; with --html, a page with every score and samples at each bound."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain inspect`."""
    parser.add_argument("path", help="a run directory, or a store/corpus-… folder")
    parser.add_argument("--html", metavar="FILE", help="write the page there")


def run(arguments: argparse.Namespace) -> int:
    """Prints a summary, and writes the page if asked."""
    from pretrain.base.errors import UserError
    from pretrain.base.files import write
    from pretrain.base.units import show_bytes
    from pretrain.corpus.survey import survey
    from pretrain.watch.corpus_page import losses, page

    folder = Path(arguments.path)
    if not folder.is_dir():
        raise UserError("no such folder", where=str(folder), expected="a run directory, or a store/corpus-… folder")
    stages = folder / "stages.json"
    if stages.exists():
        folder = folder.absolute().parent.parent / "store" / json.loads(stages.read_bytes())["folders"]["corpus"]
    found = survey(folder)
    print(f"{'step':<32} {'in':>10} {'lost':>10} {'share':>7}")
    for name, came, lost in losses(found):
        print(f"{name:<32} {came:>10,} {lost:>10,} {lost / came if came else 0:>7.1%}")
    for name, one in found.summary.items():
        train, held = one["train"], one["held_out"]
        size = show_bytes(train["bytes"] + held["bytes"])
        print(
            f"{name}: {train['documents'] + held['documents']:,} documents kept, {size}, {held['documents']:,} held out"
        )
    languages = ", ".join(f"{language} {count:,}" for language, count in found.languages.most_common(8))
    domains = ", ".join(f"{domain} {count:,}" for domain, count in found.domains["kept"].most_common(6))
    print(f"languages: {languages}\ndomains: {domains}")
    if found.clusters:
        print(
            f"the largest cluster of copies has {found.clusters[0][0]:,} documents, such as {found.clusters[0][1][0]}"
        )
    if arguments.html:
        write(Path(arguments.html), page(found, f"Corpus {folder.name}"))
        print(f"the page is in {arguments.html}")
    return 0
