"""`pretrain inspect` on a tokenizer: how it fits a corpus, and how another one does."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.tokenizer.measure import Text

MEASURED = 20_000_000  # bytes of a corpus that are looked at


def is_one(path: str) -> bool:
    """Whether a path is a tokenizer's file, or a folder that holds a tokenizer and nothing greater."""
    here = Path(path)
    if here.is_file():
        return here.name == "tokenizer.json" or here.suffix in (".model", ".tiktoken")
    greater = ("config.json", "catalogue.json", "recipe.toml")
    holds = any((here / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return holds and not any((here / name).is_file() for name in greater)


def show(path: str, against: str | None, corpus: Sequence[str], page: str | None) -> int:
    """Prints how one tokenizer, or two, fit the corpus, and writes the page if asked."""
    from pretrain.base.files import write
    from pretrain.run.find import tokenizer_of
    from pretrain.tokenizer.measure import measure
    from pretrain.tokenizer.take_over import take_over
    from pretrain.watch import tokenizer_page as shown

    columns = []
    for one in filter(None, (path, against)):
        tokenizer = take_over(tokenizer_of(one))
        name = Path(one).name if Path(one).name != "tokenizer.json" else Path(one).absolute().parent.name
        columns.append(shown.Column(name, tokenizer, measure(tokenizer, texts(corpus)) if corpus else None))
    width = max(20, *(len(one.name) + 2 for one in columns))
    print(f"{'':<24}" + "".join(f"{one.name:>{width}}" for one in columns))
    for what, values in shown.overview(columns):
        print(f"{what:<24}" + "".join(f"{value:>{width}}" for value in values))
    for by, word in (("languages", "language"), ("sources", "source")):
        if rows := list(shown.fertilities(columns, by)):
            print(f"{word}: tokens a word, bytes a token")
        for name, sizes in rows:
            cells = [f"{size.tokens_per_word:.3f}  {size.bytes_per_token:.3f}" for size in sizes]
            print(f"  {name:<22}" + "".join(f"{cell:>{width}}" for cell in cells))
    for column in columns:
        for what, some in shown.examples(column):
            print(f"{column.name}, {what}: {' '.join(some[:12]) or 'none'}")
    if page:
        write(Path(page), shown.page(columns, passages(corpus)))
        print(f"the page is in {page}")
    return 0


def texts(corpus: Sequence[str]) -> Iterator["Text"]:
    """Texts of plain files, or of the corpus of a recipe, a run or a folder: `MEASURED` bytes, by what sources hold."""
    from pretrain.corpus.cut import Cut
    from pretrain.corpus.sample import Sample
    from pretrain.run.find import corpus_of
    from pretrain.tokenizer.measure import Text

    for name in corpus:
        file = Path(name)
        if file.is_file() and file.suffix != ".toml":
            yield Text(file.name, "not said", file.read_text("utf-8", "replace"))
            continue
        cut = Cut(corpus_of(name))
        there = {source: float(one["train"]["bytes"]) for source, one in cut.summary.items()}
        for document in Sample.of(cut, MEASURED, there).documents():
            yield Text(document.source, document.language or "not said", document.text)


def passages(corpus: Sequence[str]) -> list["Text"]:
    """The first text of each language of each source, twelve at most."""
    found: dict[tuple[str, str], Text] = {}
    for one in texts(corpus):
        found.setdefault((one.source, one.language), one)
    return list(found.values())[:12]
