"""What a corpus holds and where it lost the rest, what a model is made of; with --html, as a page."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain inspect`."""
    parser.add_argument(
        "path",
        help="a recipe, a run, a store/corpus-… folder, shards, a folder of such, a tokenizer, a release, a checkpoint",
    )
    parser.add_argument(
        "--model", action="store_true", help="of a recipe or a run: its weights, also where its corpus is made"
    )
    parser.add_argument("--json", action="store_true", help="of a model: print one JSON object")
    parser.add_argument(
        "--document", metavar="ID", help="one record, by id or URL: where it is from, what became of it"
    )
    parser.add_argument("--verify", action="store_true", help="of token shards: read every one against its digests")
    parser.add_argument("--items", action="store_true", help="every evaluation item that was found, with its words")
    parser.add_argument("--html", metavar="FILE", help="write the page there")
    parser.add_argument("--against", metavar="TOKENIZER", help="of a tokenizer, or a run's: another one beside it")
    parser.add_argument(
        "--corpus", nargs="+", default=[], help="of a tokenizer, or a run's: a recipe, a run, or files of text"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints a summary, and writes the page if asked."""
    from pretrain.cli import inspect_model, inspect_tokenizer

    asked = arguments.against or arguments.corpus  # of a tokenizer, also where a model stands beside it
    if arguments.model or arguments.json or (inspect_model.is_one(arguments.path) and not asked):
        return inspect_model.show(arguments.path, as_json=arguments.json, page=arguments.html)
    if asked or inspect_tokenizer.is_one(arguments.path):
        return inspect_tokenizer.show(arguments.path, arguments.against, arguments.corpus, arguments.html)
    from pretrain.base.errors import UserError
    from pretrain.base.files import write
    from pretrain.base.units import show_bytes
    from pretrain.cli import inspect_tokens
    from pretrain.corpus.survey import survey
    from pretrain.run.find import corpus_of
    from pretrain.watch.corpus_page import page

    if places := inspect_tokens.places(arguments.path):
        return inspect_tokens.show(places, verify=arguments.verify)
    here = Path(arguments.path)
    try:
        folder = corpus_of(arguments.path)
    except UserError as error:  # of a recipe there is its model to see
        if arguments.document or arguments.items or (here.is_dir() and not (here / "recipe.toml").is_file()):
            raise
        print(f"{error}\n")
        return inspect_model.show(arguments.path, as_json=False, page=arguments.html)
    if arguments.document:
        return show(folder, tokens_of(folder), arguments.document)
    found = survey(folder, tokens_of(folder))
    print(f"{'step':<32} {'in':>10} {'lost':>10} {'share':>7}")
    for name, came, lost in found.losses():
        print(f"{name:<32} {came:>10,} {lost:>10,} {lost / came if came else 0:>7.1%}")
    for name, one in found.summary.items():
        train, held = one["train"], one["held_out"]
        size, count = show_bytes(train["bytes"] + held["bytes"]), train["documents"] + held["documents"]
        print(f"{name}: {count:,} document{'s'[: count != 1]} kept, {size}, {held['documents']:,} held out")
    languages = ", ".join(f"{language} {count:,}" for language, count in found.languages.most_common(8))
    domains = ", ".join(f"{domain} {count:,}" for domain, count in found.domains["kept"].most_common(6))
    print(f"languages: {languages}\ndomains: {domains}")
    for by, counts in found.tokens.items():
        if counts:
            print(f"tokens by {by}: " + ", ".join(f"{name} {count:,}" for name, count in counts.most_common(8)))
    if found.hits:
        print(
            f"{len(found.hits):,} evaluation items stand in its documents" + ("" if arguments.items else " (--items)")
        )
    for hit in found.hits if arguments.items else ():
        several = "s"[: hit.documents != 1]
        print(f"  {hit.evaluation}:{hit.line}  {hit.documents:,} document{several}, {hit.share:.0%}: {hit.words}")
        print("".join(f"    {url}\n" for url in hit.urls), end="")
    if found.clusters:
        print(
            f"the largest cluster of copies has {found.clusters[0][0]:,} documents, such as {found.clusters[0][1][0]}"
        )
    if arguments.html:
        write(Path(arguments.html), page(found, f"Corpus {folder.name}"))
        print(f"the page is in {arguments.html}")
    return 0


def tokens_of(folder: Path) -> list[Path]:
    """The folders of tokens that were made of a corpus' documents."""
    import json

    from pretrain.corpus.cut import Cut

    wanted = {one["train"]["digest"] for one in Cut(folder).summary.values()}
    keys = folder.parent.glob("tokens-*/key.json")
    return [path.parent for path in keys if json.loads(path.read_bytes())["key"].get("documents") in wanted]


def show(folder: Path, tokens: list[Path], wanted: str) -> int:
    """Prints all that is known of a record."""
    from pretrain.base.errors import UserError
    from pretrain.corpus.ledger import entries, places
    from pretrain.trace.pages import nearest_url

    found = entries(folder, wanted)
    if not found:
        near, what = nearest_url([folder], wanted), f"no record has the id or URL {wanted!r}"
        raise UserError(what, where=str(folder), expected="that of one", near=near)
    for entry in found:
        said = entry.verdict
        print(f"{said['id']}  {said['url']}")
        print(f"  from     {said['file']}{entry.place and f', {entry.place}'} (source {said['source']})")
        for step, reason, measures in entry.steps:
            shown = ", ".join(
                f"{name} {v:,.6g}" if isinstance(v, float) else f"{name} {v}" for name, v in measures.items()
            )
            print(f"  {step:<18} {shown or 'not measured'}" + (f"; dropped: {reason}" if reason else ""))
        print(f"  verdict  {said['split']}" + (f" by {said['step']}: {said['reason']}" if said["reason"] else ""))
        for shard, start, count in places(tokens, said["id"]):
            print(f"  tokens   {shard.parent.name}/{shard.name}: {count:,} from {start:,} on")
    return 0
