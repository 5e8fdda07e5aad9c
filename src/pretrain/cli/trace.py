"""What a run learned from: the documents of a step, or the steps that saw a page, those to come included."""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.events.kinds import Skipped
    from pretrain.trace.pages import Page
    from pretrain.trace.trace import Lineage, Sighting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain trace`."""
    parser.add_argument("run", help="a run directory")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--step", type=int, metavar="N", help="the documents of a step")
    asked.add_argument("--skipped", action="store_true", help="the documents of batches that no weight learned from")
    asked.add_argument("--url", metavar="URL", help="the steps that saw a page")
    asked.add_argument("--document", metavar="ID", help="the steps that saw a document, by its id")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints what was found."""
    from pretrain.trace.trace import Lineage

    lineage = Lineage.open(arguments.run)
    if arguments.step is not None:
        found = lineage.step(arguments.step)
        if arguments.json:
            print(json.dumps({"step": arguments.step, "documents": [told(one) for one in found]}))
        else:
            show_step(lineage, arguments.step, found)
        return 0
    if arguments.skipped:
        every = lineage.skipped()
        if arguments.json:
            tables = [{**asdict(one), "documents": [told(sighting) for sighting in found]} for one, found in every]
            print(json.dumps({"skipped": tables}))
        else:
            show_skipped(every)
        return 0
    pages = lineage.records(arguments.url or arguments.document)
    found = lineage.document(pages)
    if arguments.json:
        print(json.dumps({"records": [asdict(page) for page in pages], "sightings": [told(one) for one in found]}))
        return 0
    for page in pages:
        show_page(lineage, page, [one for one in found if one.id == page.id])
    return 0


def told(one: "Sighting") -> dict[str, object]:
    """A sighting as a JSON table."""
    return {**asdict(one), "tokens": one.tokens}


def show_step(lineage: "Lineage", step: int, found: list["Sighting"]) -> None:
    """A step's rows with their documents."""
    rows, sources = lineage.taken.rows_of(step), Counter[str]()
    for one in found:
        sources[one.source] += one.tokens
    shares = ", ".join(f"{name} {count:,}" for name, count in sources.most_common())
    documents = len({one.id for one in found})
    print(f"step {step:,}: rows {rows.start:,} to {rows.stop - 1:,}, {documents:,} documents; tokens: {shares}")
    if step > lineage.taken.step:
        print(f"not taken yet, the run stands at step {lineage.taken.step:,}: so it will be if nothing changes")
    show_rows(found)


def show_skipped(every: list[tuple["Skipped", list["Sighting"]]]) -> None:
    """What was passed over, why, and its documents."""
    from pretrain.watch.console import line

    for one, found in every:
        print(line(one))
        show_rows(found)
    if not every:
        print("no batch was passed over")


def show_rows(found: list["Sighting"]) -> None:
    """Pieces of documents, row after row."""
    from pretrain.watch.console import printable

    print(f"{'row':>10}  {'source':<12} {'epoch':>5}  {'tokens':>15}  {'document':<32}  URL")
    for one in found:
        span = f"{one.start:,}–{one.stop:,}"
        url = printable(one.url) or "(no corpus here knows it)"
        print(f"{one.position:>10,}  {one.source:<12} {one.epoch:>5}  {span:>15}  {one.id}  {url}")


def show_page(lineage: "Lineage", page: "Page", found: list["Sighting"]) -> None:
    """A record and every step that sees it."""
    from pretrain.watch.console import printable

    print(f"{page.id}  {printable(page.url)}")
    print(f"  from     {printable(page.file)}{page.where and f', {page.where}'} (source {page.source})")
    if page.split == "dropped":
        return print(f"  dropped by {page.step}: {page.reason}; no step sees it")
    if page.split == "held_out":
        return print("  held out for evaluation; no step sees it")
    if not found:
        return print("  in no row of the run's plan")
    for one in found:
        when = "" if one.taken else ", to come"
        place = f"row {one.position:,}, epoch {one.epoch}"
        print(f"  step {one.step:<6,} tokens {one.start:,}–{one.stop:,} ({place}{when})")
    for taken, words in ((True, f"by step {lineage.taken.step:,}"), (False, f"to come by {lineage.taken.planned:,}")):
        mine = [one for one in found if one.taken is taken]
        steps, tokens = len({one.step for one in mine}), sum(one.tokens for one in mine)
        if mine or taken:
            print(f"  {words}: seen in {steps:,} step{'s' if steps != 1 else ''}, {tokens:,} tokens")
    return None
