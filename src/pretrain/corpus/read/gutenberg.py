"""Project Gutenberg's plain text: its header, licence and credits taken off, hard-wrapped lines joined."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pretrain.corpus.decode import DAMAGED
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile

START = re.compile(
    r"^\W*(?:START OF (?:THIS|THE) PROJECT GUTENBERG|\*?END\W?\*? ?THE SMALL PRINT).*$", re.IGNORECASE | re.MULTILINE
)
END = re.compile(
    r"^\W*(?:END OF (?:THIS|THE) PROJECT GUTENBERG|END OF (?:THE )?PROJECT GUTENBERG'?S?).*$",
    re.IGNORECASE | re.MULTILINE,
)
CREDITS = re.compile(
    r"\A\s*(?:(?:e-?text )?(?:produced|prepared|transcribed|scanned)\b[^\n]*(?:\n[^\n]+)*\n\s*\n)+", re.I
)
FIELD = re.compile(r"^(Title|Language|Release Date|Posting Date): *(.+)$", re.MULTILINE)
LANGUAGES = {
    "english": "en", "french": "fr", "german": "de", "spanish": "es", "italian": "it", "portuguese": "pt",
    "dutch": "nl", "latin": "la", "finnish": "fi", "swedish": "sv", "danish": "da", "chinese": "zh", "greek": "el",
    "polish": "pl", "hungarian": "hu", "esperanto": "eo", "russian": "ru", "japanese": "ja",
}  # fmt: skip
WRAPPED = 45  # characters: a line at least as long goes on in the next


@dataclass(frozen=True)
class Gutenberg:
    """A book a file."""

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """The book between the markers; without markers the whole text, with `boilerplate_found` 0."""
        try:
            with file.plain() as stream:
                data = stream.read(LONGEST + 1)
        except DAMAGED:
            yield Flaw(0, file.url, "damaged compression")
            return
        if len(data) > LONGEST:
            yield Flaw(0, file.url, "too large")
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")  # what the books before 2005 are in
        text = text.replace("\r\n", "\n")
        starts, end = list(START.finditer(text)), None
        begin = starts[-1].end() if starts else 0
        end = END.search(text, begin)
        body = CREDITS.sub("", text[begin : end.start() if end else len(text)].strip("\n") + "\n\n")
        fields = {name: value.strip() for name, value in FIELD.findall(text[:begin] if starts else "")}
        language = LANGUAGES.get(fields.get("Language", "").split(",")[0].strip().lower())
        found = {"boilerplate_found": float(bool(starts) + bool(end))}
        yield Record(0, file.url, joined(body), title=fields.get("Title", ""), language=language, measures=found)


def joined(text: str) -> str:
    """Paragraphs on one line each; verse and tables, whose lines are short or indented, as they are."""
    paragraphs = []
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = block.split("\n")
        prose = all(len(line) >= WRAPPED and not line.startswith((" ", "\t")) for line in lines[:-1])
        paragraphs.append(" ".join(line.strip() for line in lines) if prose and len(lines) > 1 else block.rstrip())
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph.strip()) + "\n"
