"""Main text of a page by the blocks that it is made of: faster than trafilatura, and made here.

Shallow features of each block (Kohlschütter et al. 2010, "Boilerplate detection using shallow text features", WSDM) go
through a small convolutional net over the page's blocks (Vogels et al. 2018, "Web2Text", ECIR), trained on the soft F1
of each page by benchmarks/extraction.py. Its weights lie beside this file.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from pretrain.corpus.decode import decode
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.page import Page, cut, features
from pretrain.corpus.said import date_and_license, title

LARGEST = 4 * 2**20  # characters of a page that are parsed; the rest of a longer one is no article
NEAR = 8  # elements between a text and its row or item


@dataclass(frozen=True)
class Blocks:
    """`markdown` keeps headings, lists, tables, code and formulas as such."""

    markdown: bool = False

    def extract(self, record: Record) -> Record | Flaw:
        """The record with the page's main text, or why there is none."""
        if record.media_type == "text/plain":
            return replace(record, text=decode(record.data), data=b"")
        if record.media_type not in ("text/html", "application/xhtml+xml"):
            return Flaw(record.place, record.url, f"no text in {record.media_type or 'an unknown type'}")
        text = decode(record.data).replace("\0", "")
        page = cut(text) if len(text) <= LARGEST else None
        if page is None:
            return Flaw(record.place, record.url, "page too large")
        name = title(text)
        chosen = np.flatnonzero(self.scores(features(page, name)) > 0).tolist() if page.texts else []
        if not chosen:
            return Flaw(record.place, record.url, "no main text")
        found = "\n\n".join(_markdown(page, chosen)) if self.markdown else "\n".join(_plain(page, chosen))
        date, license = date_and_license(text)
        date, license = date or record.date, license or record.license
        return replace(record, text=found, data=b"", title=record.title or name, date=date, license=license)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """How much each block looks like main text (above 0: yes), [blocks] of inputs [blocks, features]."""
        net = self._net
        own = np.maximum(inputs @ net["own.weight"] + net["own.bias"], 0)
        near = np.maximum(_convolved(own, net["near.weight"], 1) + net["near.bias"], 0)
        far = np.maximum(_convolved(near, net["far.weight"], 3) + net["far.bias"], 0)
        mine, by_near, by_far, by_mean = net["out.weight"]
        return own @ mine + near @ by_near + far @ by_far + far.mean(0) @ by_mean + net["out.bias"]

    @cached_property
    def _net(self) -> dict[str, np.ndarray]:
        said = json.loads(Path(__file__).with_suffix(".json").read_bytes())
        return {name: np.array(value, np.float32) for name, value in said.items()}


def _convolved(x: np.ndarray, weight: np.ndarray, step: int) -> np.ndarray:
    """[blocks, out] of x [blocks, in] and weight [taps, in, out]; zeros stand around the page."""
    taps, count = len(weight), len(x)
    wide = np.zeros((count + (taps - 1) * step, x.shape[1]), np.float32)
    wide[taps // 2 * step :][:count] = x
    return sum(wide[tap * step :][:count] @ weight[tap] for tap in range(taps))


def _around(page: Page, block: int, tag: str) -> int:
    """The element with this tag around a block, 0 where there is none near."""
    box = page.boxes[block]
    for _ in range(NEAR):
        if page.tags[box] == tag:
            return box
        box = page.parents[box]
    return 0


def _plain(page: Page, chosen: list[int]) -> Iterator[str]:
    for block in chosen:
        item = _around(page, block, "li") if page.kind(block) == "li" else 0
        yield f"- {page.texts[block]}" if item and page.starts[item] == block else page.texts[block]


def _markdown(page: Page, chosen: list[int]) -> Iterator[str]:
    """Paragraphs, with a table and a list as one each."""
    for (kind, _), group in groupby(chosen, lambda block: _whole(page, block)):
        blocks = list(group)
        if kind == "tr":
            rows = [[page.texts[i] for i in row] for _, row in groupby(blocks, lambda i: _around(page, i, "tr"))]
            lines = [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in rows]
            yield "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
        elif kind == "li":
            yield "\n".join(_plain(page, blocks))
        else:
            text = "\n".join(page.texts[i] for i in blocks)
            level = "#" * int(kind[1]) + " " if kind[:1] == "h" and kind[1:].isdigit() else ""
            yield f"```\n{text}\n```" if kind == "pre" else level + " ".join(text.split()) if level else text


def _whole(page: Page, block: int) -> tuple[str, int]:
    """What a block is a part of: its kind, and the element of the table or list, or the block itself."""
    kind = page.kind(block)
    if kind in ("td", "th") and (row := _around(page, block, "tr")):
        return "tr", page.parents[row]
    if kind == "li" and (item := _around(page, block, "li")):
        return "li", page.parents[item]
    return kind, block
