r"""Papers as LaTeX source (Lamport 1994), in a file, a folder or an archive: macros expanded, structure kept."""

import io
import os
import posixpath
import re
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from pretrain.corpus.decode import DAMAGED
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.macros import argument_of, definitions, expand, group, groups
from pretrain.corpus.sources import SourceFile

VERSION = 2
DEPTH = 20  # of files that include files
MATH = ("equation", "align", "gather", "multline", "eqnarray", "displaymath", "math", "flalign", "alignat")
DROPPED = ("thebibliography", "comment", "tikzpicture", "picture", "filecontents", "lstdisplay")
ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "c": "\u0327", "v": "\u030c",
    "=": "\u0304", "u": "\u0306", "H": "\u030b", ".": "\u0307", "r": "\u030a", "k": "\u0328",
}  # fmt: skip
LETTERS = {
    "ss": "ß",
    "o": "ø",
    "O": "Ø",
    "ae": "æ",
    "AE": "Æ",
    "oe": "œ",
    "OE": "Œ",
    "l": "ł",
    "L": "Ł",
    "aa": "å",
    "i": "i",
    "S": "§",
    "dots": "…",
    "ldots": "…",
    "TeX": "TeX",
    "LaTeX": "LaTeX",
}
SILENT = (
    r"label|bibliography(?:style)?|[vh]space\*?|includegraphics|pagestyle|s?index[a-z]*|thanks|usepackage",
    r"documentclass|author|date|title|setlength|setcounter|newtheorem\*?",
)  # commands whose argument is no text
OPTIONS = r"(?:\[[^\]]{0,1000}\]){0,3}"
SECTIONS = {"part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5}


@dataclass(frozen=True)
class Latex:
    """A paper a source: sections with #, formulas between $ as written, tables as rows, captions, lists."""

    folders: ClassVar[bool] = True

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """The paper, or why it cannot be read."""
        try:
            sources = _sources(file)
        except (tarfile.TarError, zipfile.BadZipFile, ValueError, RuntimeError, *DAMAGED):
            yield Flaw(0, file.url, "damaged archive")
            return
        main = _main(sources)
        if main is None:
            yield Flaw(0, file.url, "no LaTeX source")
            return
        whole = _included(sources, main, 0)
        if len(whole) > LONGEST:
            yield Flaw(0, file.url, "too large")
            return
        whole, macros = definitions(whole)
        whole = expand(whole, macros)
        title = argument_of(whole, "title")
        body = whole.partition("\\begin{document}")[2].partition("\\end{document}")[0] or whole
        text = to_text(body)
        head = f"# {to_text(title)}\n\n" if title else ""
        yield Record(0, file.url, f"{head}{text}\n", title=to_text(title))


def _sources(file: SourceFile) -> dict[str, str]:
    """The .tex files of a source by path, those outside of it left out."""
    found: dict[str, bytes] = {}
    if file.path.is_dir():
        for folder, _, names in os.walk(file.path):  # follows no links to folders
            for name in names:
                path = file.path / os.path.relpath(os.path.join(folder, name), file.path)  # noqa: PTH118
                if path.suffix == ".tex" and path.is_file() and not path.is_symlink() and path.stat().st_size < LONGEST:
                    found[path.relative_to(file.path).as_posix()] = path.read_bytes()
        return {name: _text(data) for name, data in found.items()}
    with file.plain() as stream:
        data = stream.read(8 * LONGEST)
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".tex") and entry.file_size < LONGEST:
                    found[entry.filename] = archive.read(entry)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".tex") and member.size < LONGEST:
                    content = archive.extractfile(member)
                    found[member.name.removeprefix("./")] = content.read() if content else b""
    else:
        found[file.path.name] = data
    return {name: _text(data) for name, data in found.items() if not name.startswith(("/", ".."))}


def _text(data: bytes) -> str:
    """Source without comments."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\0", "")

    def uncommented(piece: str) -> str:
        return re.sub(r"(?<!\\)((?:\\\\)*)%[^\n]*\n?[ \t]*", r"\1", piece)

    return _between(text, r"\\begin\{(verbatim|lstlisting|minted)\}", _end, lambda m, inside: None, uncommented)


def _main(sources: dict[str, str]) -> str | None:
    def rank(name: str) -> tuple[bool, bool, int]:
        text = sources[name]
        return ("\\documentclass" in text or "\\documentstyle" in text, "\\begin{document}" in text, len(text))

    some = [name for name, text in sources.items() if "\\" in text]
    return max(some, key=rank, default=None)


def _included(sources: dict[str, str], name: str, depth: int) -> str:
    """A file with those that it includes; what is not there, or outside, is nothing."""
    if depth > DEPTH:
        return ""
    folder, size = posixpath.dirname(name), 0

    def put(match: re.Match[str]) -> str:
        nonlocal size
        for base in (folder, ""):
            path = posixpath.normpath(posixpath.join(base, match[1].strip()))
            for candidate in (path, f"{path}.tex"):
                if candidate in sources and candidate != name and size < LONGEST:
                    inner = _included(sources, candidate, depth + 1)
                    size += len(inner)
                    return inner
        return ""

    return re.sub(r"\\(?:input|include|subfile)\s*\{([^{}]{1,200})\}", put, sources[name])


def to_text(latex: str) -> str:
    """LaTeX without macros as text: what cannot be said in words stays as it is written, between $."""
    kept = list[str]()

    def keep(said: str) -> str:
        kept.append(said)
        return f"\0{len(kept) - 1}\0"

    text = _formulas(re.sub("[\0-\4]", "", latex), keep)
    text = _environments(text, keep)
    text = _commands(text)
    text = re.sub(r"\\item\s*(?:\[([^\]]{0,1000})\])?\s*", lambda m: f"\n- {m[1] + ': ' if m[1] else ''}", text)
    text = re.sub(r"\\(?:begin|end)\s*\{[^{}]{0,200}\}(?:\[[^\]]{0,1000}\])?", "\n\n", text)
    text = _accents(text)
    text = re.sub(r"\\([A-Za-z@]+)\*?\s*(?:\[[^\]\n]{0,1000}\])?", lambda m: LETTERS.get(m[1], ""), text)
    text = re.sub(r"\\([%&#_{}$ ])", lambda m: {"{": "\1", "}": "\2"}.get(m[1], m[1]), text.replace("\\\\", "\n"))
    text = text.replace("---", "—").replace("--", "–").replace("``", "“").replace("''", "”").replace("~", " ")
    text = re.sub(r"[{}]", "", text).translate({1: "{", 2: "}", 3: "[", 4: "]"})
    lines = [" ".join(line.split()) for line in re.sub(r"(?<!\n)\n(?!\n|- |#|\|)", " ", text).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    while "\0" in text:
        text = re.sub(r"\0(\d+)\0", lambda m: kept[int(m[1])], text)
    return text


def _formulas(text: str, keep: Callable[[str], str]) -> str:
    def displayed(inside: str) -> str:
        unlabelled = re.sub(r"\\label\{[^{}]*\}", "", inside).strip()
        return keep(f"$${unlabelled}$$")

    text = re.sub(r"\\verb(\W)(.*?)\1", lambda m: keep(f"`{m[2]}`"), text)
    code = r"\\begin\{((?:verbatim|lstlisting|minted|Verbatim)\*?)\}(?:\[[^\]]{0,1000}\])?(?:\{[^{}]{0,200}\})?"
    text = _between(text, code, _end, lambda m, inside: f"\n\n{keep(f'```{inside.rstrip()}{chr(10)}```')}\n\n")
    math = rf"\\begin\{{((?:{'|'.join(MATH)})\*?)\}}"
    text = _between(text, math, _end, lambda m, inside: f" {displayed(inside)} ")
    text = _between(text, r"(?<!\\)\\\[", lambda m: r"\\\]", lambda m, inside: f" {displayed(inside)} ")
    text = _between(text, r"(?<!\\)\$\$", lambda m: r"(?<!\\)\$\$", lambda m, inside: f" {displayed(inside)} ")
    text = _between(text, r"(?<!\\)\\\(", lambda m: r"\\\)", lambda m, inside: keep(f"${inside.strip()}$"))
    return re.sub(r"(?<!\\)\$((?:[^$\\]|\\.){1,5000})\$", lambda m: keep(f"${m[1].strip()}$"), text, flags=re.DOTALL)


def _end(opening: re.Match[str]) -> str:
    """The end of an environment, as a pattern."""
    return rf"\\end\{{{re.escape(opening[1])}\}}"


def _between(
    text: str,
    opening: str,
    closing: Callable[[re.Match[str]], str],
    say: Callable[[re.Match[str], str], str | None],
    outside: Callable[[str], str] = str,
) -> str:
    """What stands between an opening and its closing, with both, replaced by what is said of it; None leaves it.

    A closing that is missing is looked for once: time is linear in the text.
    """
    out, place, missing = list[str](), 0, set[str]()
    for found in re.finditer(opening, text):
        if found.start() < place or (end := closing(found)) in missing:
            continue
        stop = re.compile(end).search(text, found.end())
        if stop is None:
            missing.add(end)
            continue
        said = say(found, text[found.end() : stop.start()])
        out += [outside(text[place : found.start()]), text[found.start() : stop.end()] if said is None else said]
        place = stop.end()
    return "".join([*out, outside(text[place:])])


def _environments(text: str, keep: Callable[[str], str]) -> str:
    text = _between(text, rf"\\begin\{{((?:{'|'.join(DROPPED)})\*?)\}}", _end, lambda m, inside: "")
    tables = r"\\begin\{(tabular[xy*]?|longtable|array)\}"
    text = _between(text, tables, _end, lambda m, inside: _table(inside))

    def captions(_: re.Match[str], inside: str) -> str:
        said = argument_of(inside, "caption")
        table = "\n".join(line for line in inside.split("\n") if line.startswith("|"))
        return f"\n\n{table}\n\n{said}\n\n" if said or table else ""

    return _between(text, r"\\begin\{((?:figure|table|wrapfigure|wraptable)\*?)\}", _end, captions)


def _table(inside: str) -> str:
    start = 0
    while (found := re.compile(r"\s*[\[{]").match(inside, start)) is not None:
        end = group(inside, found.end() - 1)
        if end < 0:
            break
        start = end
    rows = []
    for row in re.split(r"\\\\(?:\[[^\]]{0,1000}\])?", inside[start:]):
        bare = re.sub(
            r"\\(?:hline|toprule|midrule|bottomrule|cline\{[^{}]*\}|cmidrule(?:\([^)]*\))?\{[^{}]*\})", "", row
        )
        cells = [" ".join(cell.split()) for cell in re.split(r"(?<!\\)&", bare)]
        if any(cells):
            rows.append(f"| {' | '.join(cells)} |")
    return "\n\n" + "\n".join(rows) + "\n\n"


def _commands(text: str) -> str:
    """Commands whose argument is text, or none of it."""
    for name, depth in SECTIONS.items():
        mark = "#" * depth

        def headed(said: str, mark: str = mark) -> str:
            return f"\n\n{mark} {' '.join(said.split())}\n\n"

        text = _each(text, rf"\\{name}\*?\s*(?:\[[^\]]{{0,1000}}\])?\s*", headed)
    text = re.sub(r"\\begin\{abstract\}", "\n\n## Abstract\n\n", text)
    text = _each(text, rf"\\(?:{'|'.join(SILENT)})\s*{OPTIONS}\s*", lambda said: "")
    text = _each(text, rf"[\s~]{{0,9}}\\(?:cite|citep|parencite|nocite|supercite)\*?\s*{OPTIONS}\s*", lambda said: "")
    text = _each(text, rf"\\(?:ref|eqref|autoref|[cC]ref|pageref|cite[a-zA-Z]*|textcite)\*?\s*{OPTIONS}\s*", _key)
    text = _each(text, r"\\footnote\s*", lambda said: f" ({said.strip()})")
    return _each(text, r"\\(?:href|textcolor)\s*\{[^{}]{0,2000}\}\s*", lambda said: said)


def _key(said: str) -> str:
    """What a reference or a citation that is part of its sentence says: its key."""
    return f"\3{' '.join(said.split())}\4"  # brackets that are no option of a command


def _each(text: str, pattern: str, say: Callable[[str], str]) -> str:
    """Every use of a command and its argument replaced by what is said of the argument."""
    uses = list(re.finditer(pattern + r"(?=\{)", text))
    ends = groups(text) if uses else {}
    out, place = list[str](), 0
    for found in uses:
        end = ends.get(found.end(), -1)
        if found.start() < place or end < 0:
            continue
        out += [text[place : found.start()], say(text[found.end() + 1 : end - 1])]
        place = end
    return "".join([*out, text[place:]])


def _accents(text: str) -> str:
    def put(match: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", match[2] + ACCENTS[match[1]])

    text = re.sub(r"\\(['`^\"~=.])\s*\{?\\?([A-Za-z])\}?", put, text)
    return re.sub(r"\\([cvuHrk])(?:\s+|\s*\{)([A-Za-z])\}?", put, text)
