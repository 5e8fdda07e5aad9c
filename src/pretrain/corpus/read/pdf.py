"""PDF (ISO 32000) by PDFium: lines in reading order by where they stand, hyphens mended, running heads taken off."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from pretrain.base.optional import extra
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile

FEW = 16  # characters: a page with fewer has no text layer to speak of
PAGES = 10_000  # of one file that are read
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+(?: +[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+)*"
)


@dataclass(frozen=True)
class _Line:
    """A line of a page, or a run of one: its text and its box in points, the origin at the bottom left."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True)
class Pdf:
    """A document a file; `scanned_pages` counts those without a text layer, and one that has no others is a flaw."""

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """The document, or why it cannot be read."""
        library = extra("pypdfium2", "crawl")
        with file.open() as raw:
            data = raw.read(8 * LONGEST + 1)
        if len(data) > 8 * LONGEST:
            yield Flaw(0, file.url, "too large")
            return
        try:
            document = library.PdfDocument(data)
        except library.PdfiumError as error:
            yield Flaw(0, file.url, "encrypted PDF" if "password" in str(error).lower() else "broken PDF")
            return
        try:
            yield self._document(file, document, library)
        finally:
            document.close()

    def _document(self, file: SourceFile, document: Any, library: Any) -> Record | Flaw:
        pages, scanned = list[list[_Line]](), 0
        for number in range(min(len(document), PAGES)):
            try:
                lines = _lines(document[number])
            except library.PdfiumError:
                lines = []
            scanned += sum(len(line.text) for line in lines) < FEW
            pages.append(lines)
        if scanned == len(pages):
            return Flaw(0, file.url, "scanned PDF: no text layer" if pages else "broken PDF")
        said = document.get_metadata_dict()
        counts = {"pages": float(len(pages)), "scanned_pages": float(scanned)}
        text = "\n\n".join(
            filter(None, map(paragraphs, without_running_heads([reading_order(page) for page in pages])))
        )
        return Record(0, file.url, text + "\n", title=said.get("Title", ""), measures=counts)


def _lines(page: Any) -> list[_Line]:
    """Runs of text that PDFium finds on a page, those on one line that stand close joined."""
    found = page.get_textpage()
    runs = list[_Line]()
    for i in range(found.count_rects()):
        left, bottom, right, top = found.get_rect(i)
        text = found.get_text_bounded(left, bottom, right, top).replace("\r\n", " ")
        text = CONTROL.sub(
            "", text.replace("\x02", "-").replace("\ufffe", "-")
        )  # PDFium's mark of a hyphen at a line's end
        if text.strip():
            runs.append(_Line(text, left, bottom, right, top))
    if any(RIGHT_TO_LEFT.search(run.text) for run in runs) and _stands_as_seen(found):
        runs = [replace(run, text=RIGHT_TO_LEFT.sub(lambda match: match[0][::-1], run.text)) for run in runs]
    found.close()
    lines = list[_Line]()
    for run in runs:
        last = lines[-1] if lines else None
        height = run.top - run.bottom
        if (
            last
            and abs((last.bottom + last.top) - (run.bottom + run.top)) < height
            and (-height < run.left - last.right < 1.5 * height or -height < last.left - run.right < 1.5 * height)
        ):
            gap = "" if last.text[-1:].isspace() or abs(run.left - last.right) < 0.12 * height else " "
            box = (
                min(last.left, run.left),
                min(last.bottom, run.bottom),
                max(last.right, run.right),
                max(last.top, run.top),
            )
            lines[-1] = _Line(last.text + gap + run.text, *box)
        else:
            lines.append(run)
    return [_Line(" ".join(line.text.split()), line.left, line.bottom, line.right, line.top) for line in lines]


def _stands_as_seen(found: Any) -> bool:
    """Whether Hebrew and Arabic letters follow each other from left to right, as printed and not as read."""
    text = found.get_text_range()
    steps = list[bool]()
    for i in range(min(found.count_chars(), len(text)) - 1):
        if RIGHT_TO_LEFT.fullmatch(text[i : i + 2]):
            steps.append(found.get_charbox(i + 1)[0] >= found.get_charbox(i)[0])  # equal: of one glyph, turned round
    return sum(steps) > len(steps) / 2


def reading_order(lines: list[_Line]) -> list[_Line]:
    """From top to bottom; where a gutter parts the page, the left column before the right one between wide lines."""
    from_top = sorted(lines, key=lambda line: (-round(line.top, 1), line.left))
    gutter = _gutter(lines)
    if gutter is None:
        return from_top
    out, left, right = list[_Line](), list[_Line](), list[_Line]()
    for line in from_top:
        if line.right <= gutter:
            left.append(line)
        elif line.left >= gutter:
            right.append(line)
        else:
            out += [*left, *right, line]
            left, right = [], []
    return [*out, *left, *right]


def _gutter(lines: list[_Line]) -> float | None:
    """Where a vertical white strip in the middle half of a page has a quarter of the lines on either side."""
    if len(lines) < 8:
        return None
    low, high = min(line.left for line in lines), max(line.right for line in lines)
    best = None
    for step in range(25, 76):
        x = low + (high - low) * step / 100
        left = sum(line.right <= x for line in lines)
        right = sum(line.left >= x for line in lines)
        if min(left, right) >= len(lines) / 4 and left + right >= 0.8 * len(lines):
            across = len(lines) - left - right
            best = min(best or (across, abs(step - 50), x), (across, abs(step - 50), x))
    return None if best is None else best[2]


def without_running_heads(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Pages without page numbers, and without first and last lines that at least three of them share but for digits."""

    def bare(line: _Line) -> str:
        return re.sub(r"[\dIVXLCivxlc]+", "#", line.text) if len(line.text) < 12 else re.sub(r"\d+", "#", line.text)

    edges = Counter(bare(line) for page in pages for line in {*page[:1], *page[-1:]})
    out = []
    for page in pages:
        kept = list(page)
        for place in (0, -1):
            while kept and (
                ((place or len(pages) > 1) and re.fullmatch(r"\W*\d{1,4}\W*|[ivxlc]{1,7}", kept[place].text))
                or edges[bare(kept[place])] >= max(3, len(pages) // 3)
            ):
                del kept[place]
        out.append(kept)
    return out


def paragraphs(lines: list[_Line]) -> str:
    """Lines joined to paragraphs: a wide gap, an indent after a full stop or a short line ends one."""
    if not lines:
        return ""
    height = median(line.top - line.bottom for line in lines)
    width = max(line.right for line in lines) - min(line.left for line in lines)
    out = [lines[0].text]
    for before, line in pairwise(lines):
        gap = before.bottom - line.top
        column = [one.right for one in lines if abs(one.left - before.left) < width / 4]
        ends = before.text.endswith((".", "!", "?", ":", '"', "”", "。"))
        short = before.right < max(column, default=before.right) - 0.15 * width
        other_size = abs((line.top - line.bottom) - (before.top - before.bottom)) > 0.35 * height
        if gap > 0.9 * height or (ends and (short or line.left > before.left + height)) or (other_size and short):
            out.append(line.text)
        elif re.search(r"\w[-\u00ad\u2010]$", out[-1]) and line.text[:1].islower():
            out[-1] = out[-1][:-1] + line.text
        else:
            out[-1] += " " + line.text
    return "\n\n".join(out)
