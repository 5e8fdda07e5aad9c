"""A web page as blocks of text, and what can be counted about each: the shallow features of Kohlschütter et al. 2010.

The page is parsed once as browsers do (Lexbor, through resiliparse) and written out again: that string is well formed,
so one regular expression reads it, and a page of any depth costs time and memory linear in its length.
"""

import html
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pretrain.base.optional import extra

LONGEST = 8 * 2**20  # characters of a page once it is well formed
MOST = 20_000  # blocks of a page
SILENT = re.compile(
    "<(?:!--|(script|style|noscript|svg|iframe|template|select|button|textarea|object|audio|video|canvas|dialog)\\b)"
)
TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)([^>]*)>")  # < and > inside attributes are escaped
SAID = re.compile(r'\b(?:class|id|itemprop|role|style|hidden|aria-hidden)="([^"]*)"')
FORMULA = re.compile(r'\balttext="([^"]*)"')
KINDS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "th", "pre", "blockquote", "figcaption", "dt", "dd", "")
INSIDE = (
    *("article", "main", "aside", "header", "footer", "nav"),
    *("form", "figure", "table", "ul", "blockquote", "section"),
)
BREAKS = {*KINDS[:-1], *INSIDE} | {
    *("address", "body", "caption", "center", "details", "dir", "div", "dl", "fieldset", "hr"),
    *("menu", "ol", "summary", "tbody", "tfoot", "thead", "tr"),
}
HINTS = {  # words in class, id, role and the like, each group a bit
    "comment": "comment comments disqus respond reply replies commentlist",
    "menu": "nav navi navbar navigation menu submenu breadcrumb breadcrumbs crumb crumbs toolbar"
    " pagination pager paging",
    "foot": "foot footer copyright legal impressum imprint footnote colophon",
    "head": "header masthead banner logo topbar top head",
    "side": "sidebar side aside widget widgets rail secondary right left col column complementary",
    "related": "related relative recommended recommendations more also popular trending latest next outbrain taboola"
    " similar read most recirc recent prev previous",
    "list": "link links list grid carousel items teaser teasers card cards item promo feed collection",
    "share": "share sharing social facebook twitter follow addthis sharedaddy whatsapp buttons button btn",
    "meta": "meta byline author authors date time timestamp published tag tags category categories posted info infos"
    " credit credits label kicker source bio dateline details data user avatar updated",
    "ad": "ad ads adv advert advertisement advertising sponsor sponsored sponsors dfp gpt adsense promoted anzeige",
    "form": "newsletter subscribe subscription signup login register search cookie cookies consent modal popup overlay"
    " paywall alert form donate dialog notice gdpr optin",
    "media": "caption gallery slide slider slideshow image images img photo photos media video player figure picture",
    "title": "title headline heading titre",
    "lead": "lead intro summary excerpt abstract standfirst dek teaser description subtitle subheadline deck",
    "quote": "quote blockquote pullquote pull inset box embed tweet infobox note",
    "body": "body paragraph text copy prose richtext bodytext articlebody textblock texte",
    "article": "article entry story post blog news single hentry beitrag artikel articlebody",
    "content": "content main contents container wrapper inner primary",
    "hidden": "hidden hide sr only visually invisible none print screen noprint collapse collapsed",
}
KIND = {tag: i for i, tag in enumerate(KINDS)}
PRE = KIND["pre"]
ONE_HOT = np.eye(len(KINDS), dtype=np.float32)
BIT = {tag: 1 << i for i, tag in enumerate(INSIDE)} | {"ol": 1 << INSIDE.index("ul")}
WORDS = {word: 1 << (len(INSIDE) + i) for i, words in enumerate(HINTS.values()) for word in words.split()}
WORD = re.compile("[a-z]+|[A-Z][a-z]*")
CLASSES = np.zeros(0xFFFF, np.uint8)  # of characters
for kind, characters in enumerate((" \n", ",，、;", ".!?。！？…", "0123456789", ":\"'”’»)"), start=1):
    CLASSES[[ord(one) for one in characters]] = kind


@dataclass(slots=True)
class Page:
    """Blocks in order (runs of text between tags that break the line) and boxes (the elements with such tags)."""

    texts: list[str] = field(default_factory=list)  # of each block
    boxes: list[int] = field(default_factory=list)  # the innermost around it
    linked: list[int] = field(default_factory=list)  # its characters inside links
    tags: list[str] = field(default_factory=lambda: [""])  # of each box; the first is around all
    kinds: list[int] = field(default_factory=lambda: [len(KINDS) - 1])  # of KINDS, the nearest around it or its own
    around: list[int] = field(default_factory=lambda: [0])  # bits of INSIDE and HINTS of it and all around it
    own: list[int] = field(default_factory=lambda: [0])  # the same of it alone
    parents: list[int] = field(default_factory=lambda: [0])
    starts: list[int] = field(default_factory=lambda: [0])  # the first block in it
    stops: list[int] = field(default_factory=lambda: [0])  # and the one after its last

    def kind(self, block: int) -> str:
        """Of KINDS, what a block is."""
        return KINDS[self.kinds[self.boxes[block]]]


def cut(page: str) -> Page | None:
    """The blocks of a page; None if it is too large once it is well formed."""
    body = extra("resiliparse.parse.html", "crawl").HTMLTree.parse(page).body
    if body is None:
        return Page()
    text = body.html
    if len(text) > LONGEST:
        return None
    out = _blocks(_heard(text))
    return out if len(out.texts) <= MOST else None


def _heard(page: str) -> str:
    """A page without its scripts, styles, comments and what else is not read."""
    parts, at = [], 0
    while found := SILENT.search(page, at):
        parts.append(page[at : found.start()])
        close = f"</{found[1]}>" if found[1] else "-->"
        stop = page.find(close, found.start() + 2)
        at = len(page) if stop < 0 else stop + len(close)
    return "".join([*parts, page[at:]])


def _blocks(page: str) -> Page:
    out, pieces, known = Page(), list[str](), dict[str, int]()
    box, links, linked, broken, mute = 0, 0, 0, False, 0

    def flush() -> None:
        nonlocal linked, broken
        text = _clean("".join(pieces), whole=out.kinds[box] == PRE)
        pieces.clear()
        if text:
            out.texts.append(text)
            out.boxes.append(box)
            out.linked.append(min(linked, len(text)))
        linked, broken = 0, False

    parts = iter(TAG.split(page))
    next(parts)  # before <body>
    for end, tag, said, text in zip(parts, parts, parts, parts, strict=True):
        if tag in BREAKS:
            if pieces:
                flush()
            if end:
                out.stops[box] = len(out.texts)
                box = out.parents[box]
            elif tag != "hr":
                box = _open(out, box, tag, said, known)
        elif tag == "a":
            links = 0 if end else 1
        elif tag == "br":
            if broken:
                flush()
            elif pieces:
                pieces.append("\v")
                broken = True
        elif tag == "math":
            mute = not end
            if not end and (formula := FORMULA.search(said)):
                pieces.append(f"${formula[1]}$")
        if text and not mute:
            if not text.isspace():
                pieces.append(text)
                broken = False
                if links:
                    linked += len(text)
            elif pieces:
                pieces.append(text)
    flush()
    out.stops[0] = len(out.texts)
    return out


def _open(out: Page, box: int, tag: str, said: str, known: dict[str, int]) -> int:
    own = BIT.get(tag, 0)
    if said:
        if said not in known:
            known[said] = _hints(said)
        own |= known[said]
    out.tags.append(tag)
    out.kinds.append(KIND.get(tag, out.kinds[box]))
    out.around.append(out.around[box] | own)
    out.own.append(own)
    out.parents.append(box)
    out.starts.append(len(out.texts))
    out.stops.append(len(out.texts))
    return len(out.tags) - 1


def _hints(said: str) -> int:
    """Bits of what an element calls itself."""
    words = " ".join(SAID.findall(said))
    out = 0
    for word in WORD.findall(words):
        out |= WORDS.get(word.lower(), 0)
    return out


def _clean(text: str, *, whole: bool) -> str:
    if "&" in text:
        text = html.unescape(text)
    if whole:
        return text.replace("\v", "\n").strip("\n") if not text.isspace() else ""
    if "\v" in text:
        return "\n".join(line for raw in text.split("\v") if (line := " ".join(raw.split())))
    return " ".join(text.split())


def features(page: Page, title: str) -> np.ndarray:
    """What the model sees of each block, float32 [blocks, features]; there must be one."""
    texts, count = page.texts, len(page.texts)
    size, words, ended, commas, stops, digits = _characters(texts).T
    box, parents = np.array(page.boxes), np.array(page.parents)
    kind = np.array(page.kinds)[box]
    linked = np.array(page.linked, np.float32)
    prose = np.where(size > 60, size - linked, 0)
    total = max(float(prose.sum()), 1.0)
    depth = _depths(page.parents)[box]
    best = int(np.argmax(prose))
    like = kind * 64 + np.minimum(depth, 63)
    times = Counter(texts)
    heads = np.flatnonzero(kind == KIND["h1"])
    place, top = np.arange(count), int(heads[0]) if len(heads) else 0
    named, item = frozenset(title.lower().split()), KIND["li"]
    short = ((size < 200) & (kind != item)).tolist()
    columns = [
        np.log1p(size) / 5,
        np.log1p(words) / 4,
        size / words / 10,
        linked / size,
        np.log1p(linked) / 5,
        ended,
        commas / 5,
        stops / 5,
        digits / size * 5,
        [text[0].islower() for text in texts],
        [_share(text, named) if small else 0 for text, small in zip(texts, short, strict=True)],
        [times[text] > 1 for text in texts],
        size > 60,
        size > 150,
        place / count,
        np.minimum(place, 100) / 100,
        (np.cumsum(prose) - prose) / total,
        prose / total,
        np.clip((place - top) / 30, -2, 2) * bool(len(heads)),
        place >= top,
        len(heads) > 0,
        np.clip((place - best) / 30, -2, 2),
        np.minimum(depth, 100) / 20,
        np.clip(depth - depth[best], -50, 50) / 10,
        np.log1p(np.bincount(like)[like]) / 5,
        np.bincount(like, prose)[like] / total,
        np.log1p(count) / 7,
        np.log1p(total) / 10,
        *_containers(page, prose, box, parents),
    ]
    first = np.empty((len(columns), count), np.float32)
    for row, column in zip(first, columns, strict=True):
        row[:] = column
    own, up = np.array(page.own, "<u4"), parents[box]
    bits = np.stack([np.array(page.around, "<u4")[box], own[box], own[up], own[parents[up]]], 1)
    flags = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")
    return np.concatenate([first.T, ONE_HOT[kind], flags], 1, dtype=np.float32)


def _depths(parents: list[int]) -> np.ndarray:
    out = [0]
    for parent in parents[1:]:
        out.append(out[parent] + 1)
    return np.array(out)


def _share(text: str, named: frozenset[str]) -> float:
    words = text.lower().split()
    return len(named.intersection(words)) / len(words)


def _characters(texts: list[str]) -> np.ndarray:
    """Of each text, float32 [texts, 6]: characters, words, its last ends a sentence, commas, full stops, digits."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    stops = np.cumsum(sizes)
    kinds = CLASSES[np.minimum(codes, len(CLASSES) - 1)]
    counts = [np.add.reduceat(kinds == kind, stops - sizes, dtype=np.float32) for kind in range(1, 5)]
    last = kinds[stops - 1]
    return np.stack([sizes, counts[0] + 1, (last == 3) | (last == 5), *counts[1:]], 1).astype(np.float32)


def _containers(page: Page, prose: np.ndarray, box: np.ndarray, parents: np.ndarray) -> list[np.ndarray]:
    """How much of the page's prose the boxes around each block hold, and whether it is inside the best of them."""
    count = len(parents)
    own = np.bincount(box, prose, count)
    score = own + np.bincount(parents, own, count)  # its own and its children's, as readers' views of browsers count
    held = np.concatenate([[0.0], np.cumsum(prose)])
    starts, stops = np.array(page.starts), np.array(page.stops)
    within = held[stops] - held[starts]
    top, total, place = int(np.argmax(score)), max(held[-1], 1.0), np.arange(len(box))
    wide, first = parents[top], parents[box]
    second = parents[first]
    shares = own[box], own[first], score[box], score[first], within[first], within[second], within[parents[second]]
    inside = [(place >= starts[one]) & (place < stops[one]) for one in (top, wide)]
    return [*(one / total for one in shares), *inside, box == top, first == top]
