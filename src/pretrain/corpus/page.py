"""A web page as blocks of text, and what can be counted about each: the shallow features of Kohlschütter et al. 2010.

The page is parsed once as browsers do (Lexbor, through resiliparse) and written out again: that string is well formed,
so one regular expression reads it, and a page of any depth costs time and memory linear in its length.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from pretrain.base.optional import extra

LONGEST = 8 * 2**20  # characters of a page once it is well formed
MOST = 20_000  # blocks of a page
SILENT = re.compile(
    "<(?:!--|(script|style|noscript|svg|iframe|template|select|button|textarea|object|audio|video|canvas|dialog)\\b)"
)
TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)([^>]*)>")  # < and > inside attributes are escaped
SAID = 200  # characters of an element's attributes that are read
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
    " credit credits label kicker source bio dateline details user avatar updated",
    "ad": "ad ads adv advert advertisement advertising sponsor sponsored sponsors dfp gpt adsense promoted anzeige",
    "form": "newsletter subscribe subscription signup login register search cookie cookies consent modal popup overlay"
    " paywall alert form donate dialog notice gdpr optin",
    "media": "caption gallery slide slider slideshow image images img photo photos media video player figure picture",
    "title": "title headline heading titre",
    "lead": "lead intro summary excerpt abstract standfirst dek teaser description subtitle subheadline deck",
    "quote": "quote blockquote pullquote pull inset box embed tweet infobox note",
    "body": "body paragraph text copy prose richtext bodytext articlebody articletext textblock texte",
    "article": "article entry story post blog news single hentry beitrag artikel articlebody articlecontent",
    "content": "content main contents container wrapper inner primary maincontent articlecontent postcontent",
    "hidden": "hidden hide sr only visually invisible none print screen noprint collapse collapsed",
}
SAYS = {  # words of short blocks, and of the heading above, in the languages that most pages are in
    "more": "related more also read lesen auch mehr weitere lire aussi plus leia mais más też czytaj więcej"
    " recommended popular trending latest similar beliebt meistgelesen artikel articles stories",
    "comment": "comment comments kommentar kommentare kommentieren commentaire commentaires comentario comentarios"
    " comentários komentarz komentarze reply antworten répondre responder odpowiedz leave replies",
    "share": "share teilen partager compartir compartilhar udostępnij facebook twitter tweet whatsapp email e-mail"
    " print drucken imprimer imprimir linkedin pinterest reddit instagram youtube follow folgen",
    "legal": "copyright © rights reserved terms privacy policy impressum datenschutz datenschutzerklärung agb cookie"
    " cookies conditions mentions légales inc. gmbh llc ltd",
    "join": "subscribe newsletter sign login log register abonnieren abo anmelden registrieren inscription connexion"
    " suscríbete zaloguj subscribers account konto signing inbox",
    "credit": "photo image foto bild fotos bilder credit getty images reuters ap afp dpa source quelle via picture:"
    " photo: foto: image: bild: (photo: quelle: source: crédit zdjęcie",
    "by": "by von par por author autor auteur published updated posted veröffentlicht aktualisiert publié posted:"
    " written editor staff reporter redaktion uhr pm am ago edt est gmt",
    "ad": "advertisement anzeige werbung publicité publicidad sponsored promoted ad ads reklama",
    "go": "home menu search suche suchen start startseite kontakt contact about über next previous zurück weiter page"
    " seite nach oben top back skip prev suivant précédent szukaj categories kategorien tags tags: filed",
    "month": "january february march april may june july august september october november december jan feb mar apr jun"
    " jul aug sep sept oct nov dec januar februar märz mai juni juli oktober dezember janvier février mars avril juin"
    " juillet août septembre octobre novembre décembre",
}
KIND = {tag: i for i, tag in enumerate(KINDS)}
PRE = KIND["pre"]
ONE_HOT = np.eye(len(KINDS), dtype=np.float32)
BIT = {tag: 1 << i for i, tag in enumerate(INSIDE)} | {"ol": 1 << INSIDE.index("ul")}
WORDS = {word.encode(): 1 << (len(INSIDE) + i) for i, words in enumerate(HINTS.values()) for word in words.split()}
WORDS[b"\0"] = -1  # between two elements
SAID_WORDS = {word: 1 << i for i, words in enumerate(SAYS.values()) for word in words.split()} | {"\0": -1}
USED = np.flatnonzero(  # of the bits of four boxes and two texts
    np.arange(6 * 32) % 32 < np.repeat([len(INSIDE) + len(HINTS)] * 4 + [len(SAYS)] * 2, 32)
)
SHORT = 100  # characters of a text whose words are looked at
LETTERS = bytes(code if chr(code).isalpha() or not code else 32 for code in bytes(range(128)).lower()) + b" " * 128
LARGE = "".join(chr(code) for code in range(0x530) if chr(code).isupper())
CLASSES = np.zeros(0xFFFF, np.uint8)  # of characters
for kind, characters in enumerate((" \n", ",，、;", ".!?。！？…", "0123456789", ":\"'”’»)", LARGE), start=1):
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
    depths: list[int] = field(default_factory=lambda: [0])
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
    out, pieces, said = Page(), list[str](), [""]
    texts, boxes, tags, parents, starts, stops = out.texts, out.boxes, out.tags, out.parents, out.starts, out.stops
    box, links, linked, broken, mute, some = 0, False, 0, False, False, "<pre" in page

    def flush() -> None:
        nonlocal linked, broken
        text = _clean("".join(pieces), whole=some and _is_pre(out, box))
        pieces.clear()
        if text:
            texts.append(text)
            boxes.append(box)
            out.linked.append(min(linked, len(text)))
        linked, broken = 0, False

    parts = iter(TAG.split(page))
    next(parts)  # before <body>
    for end, tag, attributes, text in zip(parts, parts, parts, parts, strict=True):
        if tag in BREAKS:
            if pieces:
                flush()
            if end:
                stops[box] = len(texts)
                box = parents[box]
            elif tag != "hr":
                tags.append(tag)
                said.append(attributes)
                parents.append(box)
                starts.append(len(texts))
                stops.append(len(texts))
                box = len(tags) - 1
        elif tag == "a":
            links = not end
        elif tag == "br":
            if broken:
                flush()
            elif pieces:
                pieces.append("\v")
                broken = True
        elif tag == "math":
            mute = not end
            if mute and (formula := FORMULA.search(attributes)):
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
    stops[0] = len(texts)
    _inherit(out, _hints(said))
    return out


def _is_pre(page: Page, box: int) -> bool:
    """Whether the nearest element around a text that has a kind is a <pre>."""
    while box and page.tags[box] not in KIND:
        box = page.parents[box]
    return page.tags[box] == "pre"


def _inherit(page: Page, hints: list[int]) -> None:
    """Kinds, depths and bits of the boxes, of what is around them and of their own."""
    kinds, around, depths = page.kinds, page.around, page.depths
    for tag, box, hint in zip(page.tags[1:], page.parents[1:], hints[1:], strict=True):
        own = BIT.get(tag, 0) | hint
        page.own.append(own)
        kinds.append(KIND.get(tag, kinds[box]))
        around.append(around[box] | own)
        depths.append(depths[box] + 1)


def _hints(said: list[str]) -> list[int]:
    """Bits of what elements call themselves, of the attributes of each."""
    short = [one[:SAID] for one in said]
    known = dict.fromkeys(short)
    words = "\0".join(known).encode("ascii", "replace").translate(LETTERS).replace(b"\0", b" \0 ").split()
    found = dict(zip(known, _sums(map(WORDS.get, words, repeat(0))), strict=True))
    return [found[one] for one in short]


def _sums(bits: Iterable[int]) -> list[int]:
    """Each stretch of bits as one; -1 stands between two."""
    out, some = [], 0
    for bit in bits:
        if bit < 0:
            out.append(some)
            some = 0
        else:
            some |= bit
    return [*out, some]


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
    size, words, ended, commas, stops, digits, large = _characters(texts).T
    box, parents = np.array(page.boxes), np.array(page.parents)
    kind = np.array(page.kinds)[box]
    linked = np.array(page.linked, np.float32)
    prose = np.where(size > 60, size - linked, 0)
    total = max(float(prose.sum()), 1.0)
    depth = np.array(page.depths)[box]
    best = int(np.argmax(prose))
    like = kind * 64 + np.minimum(depth, 63)
    times = Counter(texts)
    heads = np.flatnonzero(kind == KIND["h1"])
    place, top = np.arange(count), int(heads[0]) if len(heads) else 0
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
        large / words,
        [text[0].islower() for text in texts],
        [text in title or title in text for text in texts] if title else 0,
        [times[text] > 1 for text in texts],
        size > 60,
        size > 150,
        place / count,
        np.minimum(place, 100) / 100,
        np.minimum(count - place, 100) / 100,
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
        *_containers(page, prose, size, linked, box, parents),
    ]
    first = np.empty((len(columns), count), np.float32)
    for row, column in zip(first, columns, strict=True):
        row[:] = column
    own, up = np.array(page.own, "<u4"), parents[box]
    says = np.array(_said(texts), "<u4")
    above = np.maximum.accumulate(np.where((kind >= KIND["h1"]) & (kind <= KIND["h6"]), place, -1))
    bits = [np.array(page.around, "<u4")[box], own[box], own[up], own[parents[up]], says, says[above] * (above >= 0)]
    flags = np.unpackbits(np.stack(bits, 1, dtype="<u4").view(np.uint8), axis=1, bitorder="little")
    return np.concatenate([first.T, ONE_HOT[kind], flags[:, USED]], 1, dtype=np.float32)


def _said(texts: list[str]) -> list[int]:
    """Bits of the words of short texts."""
    short = " \0 ".join(text if len(text) < SHORT else "" for text in texts)
    return _sums(map(SAID_WORDS.get, short.lower().split(" "), repeat(0)))


def _characters(texts: list[str]) -> np.ndarray:
    """Of each text, float32 [texts, 7]: characters, words, ends a sentence, commas, stops, digits, capitals."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    stops = np.cumsum(sizes)
    kinds = CLASSES[np.minimum(codes, len(CLASSES) - 1)]
    counts = [np.add.reduceat(kinds == kind, stops - sizes, dtype=np.float32) for kind in (1, 2, 3, 4, 6)]
    last = kinds[stops - 1]
    return np.stack([sizes, counts[0] + 1, (last == 3) | (last == 5), *counts[1:]], 1).astype(np.float32)


def _containers(
    page: Page, prose: np.ndarray, size: np.ndarray, linked: np.ndarray, box: np.ndarray, parents: np.ndarray
) -> list[np.ndarray]:
    """How much of the page's prose, and of links, the boxes around a block hold; whether it is in the best of them."""
    count = len(parents)
    own = np.bincount(box, prose, count)
    score = own + np.bincount(parents, own, count)  # its own and its children's, as readers' views of browsers count
    starts, stops = np.array(page.starts), np.array(page.stops)
    within, long, links = (
        held[stops] - held[starts]
        for held in (np.concatenate([[0.0], np.cumsum(one)]) for one in (prose, size, linked))
    )
    top, total, place = int(np.argmax(score)), max(float(prose.sum()), 1.0), np.arange(len(box))
    wide, first = parents[top], parents[box]
    second = parents[first]
    third = parents[second]
    shares = own[box], own[first], score[box], score[first], within[first], within[second], within[third]
    inside = [(place >= starts[one]) & (place < stops[one]) for one in (top, wide)]
    density = links / np.maximum(long, 1)
    many = np.log1p(stops - starts) / 5
    around = density[box], density[first], density[second], density[third], many[first], many[second]
    return [*(one / total for one in shares), *around, *inside, box == top, first == top]
