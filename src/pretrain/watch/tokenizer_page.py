"""One tokenizer, or two on the same texts: figures for a terminal, and a page that needs nothing else."""

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pretrain.base.units import show_bytes
from pretrain.tokenizer.measure import KINDS, RARE, Fertility, Text, Use, makeup, scripts, shown, unreachable
from pretrain.tokenizer.tokenizer import Tokenizer
from pretrain.watch.corpus_page import KEPT, LOST, STYLE

EXAMPLES = 40  # tokens that a list shows
PASSAGE = 280  # characters of a text that is shown in tokens
OWN_STYLE = """
.two > div { min-width: 0 } pre { overflow-wrap: anywhere }
.t { border-radius: 2px; white-space: pre-wrap } .t:nth-child(odd) { background: #dbe8f0 }
.t:nth-child(even) { background: #f3e3dc } .bar { display: inline-block; height: .7em; margin-right: .4em }
"""


@dataclass(frozen=True)
class Column:
    """A tokenizer, and what it made of the texts, if there are any."""

    name: str
    tokenizer: Tokenizer
    use: Use | None


Row = tuple[str, list[str]]


def overview(columns: Sequence[Column]) -> Iterator[Row]:
    """What is said of each tokenizer as a whole: (what, a value a column)."""
    yield "ids", [f"{one.tokenizer.vocab_size:,}" for one in columns]
    for kind in KINDS:
        if any(counts := [makeup(one.tokenizer)[kind] for one in columns]):
            yield f"  {kind}", [f"{count:,}" for count in counts]
    if any(counts := [len(unreachable(one.tokenizer)) for one in columns]):
        yield "never encoded to", [f"{count:,}" for count in counts]
    uses = [(one.use, one.tokenizer.specials) for one in columns if one.use is not None]
    if not uses:
        return
    yield "text", [show_bytes(use.total.bytes) for use, _ in uses]
    yield "tokens", [f"{use.total.tokens:,}" for use, _ in uses]
    yield "bytes a token", [f"{use.total.bytes_per_token:.3f}" for use, _ in uses]
    yield "tokens a word", [f"{use.total.tokens_per_word:.3f}" for use, _ in uses]
    yield "unused tokens", [_share(len(use.unused(specials)), use) for use, specials in uses]
    yield f"seen under {RARE} times", [_share(len(use.rare(specials)), use) for use, specials in uses]


def _share(count: int, use: Use) -> str:
    return f"{count:,} ({count / len(use.counts):.1%})"


def fertilities(columns: Sequence[Column], by: str) -> Iterator[tuple[str, list[Fertility]]]:
    """(language or source, sizes a column), most text first; `by` is "languages" or "sources"."""
    tables = [getattr(one.use, by) for one in columns if one.use is not None]
    names = sorted(tables[0], key=lambda name: -tables[0][name].bytes) if tables else []
    for name in names:
        yield name, [table[name] for table in tables]


def examples(column: Column) -> Iterator[tuple[str, list[str]]]:
    """(what, tokens): of those that never or hardly came, and of those that no text becomes."""
    tokenizer, use = column.tokenizer, column.use
    if use is not None:
        yield "unused", [shown(tokenizer, i) for i in use.unused(tokenizer.specials)[:EXAMPLES]]
        rare = sorted(use.rare(tokenizer.specials), key=lambda i: int(use.counts[i]))
        yield "under-trained", [f"{shown(tokenizer, i)} ×{use.counts[i]}" for i in rare[:EXAMPLES]]
    if never := unreachable(tokenizer):
        yield "never encoded to", [shown(tokenizer, i) for i in never[:EXAMPLES]]


def page(columns: Sequence[Column], passages: Sequence[Text]) -> str:
    """The whole page; `passages` are shown in the tokens of each."""
    title = " and ".join(one.name for one in columns)
    names = [one.name for one in columns]
    body = [
        f"<h1>Tokenizer {_text(title)}</h1>",
        _table(["", *names], [[what, *values] for what, values in overview(columns)]),
        *(_fertility(columns, by, word) for by, word in (("languages", "language"), ("sources", "source"))),
        "<h2>What the vocabulary is written in</h2>",
        _side_by_side(columns, lambda one: _counts(scripts(one.tokenizer).most_common(12))),
        "<h2>Tokens that learn little or nothing</h2>",
        _side_by_side(columns, lambda one: "".join(_list(what, some) for what, some in examples(one))),
        "<h2>The same text in tokens</h2>" if passages else "",
        *(_passage(columns, one) for one in passages),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Tokenizer {_text(title)}</title>'
        f"<style>{STYLE}{OWN_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _text(said: str) -> str:
    return html.escape(said)


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        first, *rest = (_text(cell) for cell in cells)
        return f"<tr><{tag}>{first}</{tag}>{''.join(f'<{tag} class=n>{cell}</{tag}>' for cell in rest)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _fertility(columns: Sequence[Column], by: str, word: str) -> str:
    rows = list(fertilities(columns, by))
    if not rows:
        return ""
    widest = max(size.bytes_per_token for _, sizes in rows for size in sizes)
    lines = []
    for name, sizes in rows:
        cells = "".join(
            f'<td class=n>{size.tokens_per_word:.3f}</td><td><span class=bar style="background:{colour};'
            f'width:{160 * size.bytes_per_token / widest:.0f}px"></span>{size.bytes_per_token:.3f}</td>'
            for size, colour in zip(sizes, (KEPT, LOST), strict=False)
        )
        lines.append(f"<tr><td>{_text(name)}</td><td class=n>{show_bytes(sizes[0].bytes)}</td>{cells}</tr>")
    heads = "".join(f"<th class=n>tokens a word</th><th>bytes a token: {_text(one.name)}</th>" for one in columns)
    head = f"<tr><th>{word}</th><th class=n>text</th>{heads}</tr>"
    return f"<h2>By {word}</h2><table>{head}{''.join(lines)}</table>"


def _side_by_side(columns: Sequence[Column], inside: Callable[[Column], str]) -> str:
    blocks = "".join(f"<div><b>{_text(one.name)}</b>{inside(one)}</div>" for one in columns)
    return f'<div class="two">{blocks}</div>'


def _counts(rows: Sequence[tuple[str, int]]) -> str:
    return _table(["script", "tokens"], [[name, f"{count:,}"] for name, count in rows])


def _list(what: str, some: list[str]) -> str:
    return f"<p class=muted>{what}</p><pre>{_text('  '.join(some) or 'none')}</pre>"


def _passage(columns: Sequence[Column], one: Text) -> str:
    def inside(column: Column) -> str:
        tokenizer = column.tokenizer
        ids = tokenizer.encode(one.text[:PASSAGE]).tolist()
        spans = "".join(f'<span class=t title="{i}">{_text(word)}</span>' for i, word in _words(tokenizer, ids))
        return f" {len(ids)} tokens<pre>{spans}</pre>"

    return f"<p class=muted>{_text(one.source)}, {_text(one.language)}</p>{_side_by_side(columns, inside)}"


def _words(tokenizer: Tokenizer, ids: list[int]) -> Iterator[tuple[int, str]]:
    """Each id and its text; of a character that is cut, its bytes."""
    for i in ids:
        piece = tokenizer.pieces[i]
        word = piece.decode("utf-8", "replace")
        yield i, word if "\N{REPLACEMENT CHARACTER}" not in word else f"‹{piece.hex(' ')}›"
