"""Published tokenizers, whatever their file: tokenizer.json, tiktoken ranks or a SentencePiece model."""

import re
from collections.abc import Sequence
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.tokenizer import sentencepiece, tiktoken
from pretrain.tokenizer.tokenizer import CONFIG, FILE, Tokenizer

RANKS = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


def find(path: str) -> Path:
    """The file of a tokenizer: the one named, or the first of the usual ones in a folder. Raises UserError."""
    folder = Path(path)
    if folder.is_file():
        return folder
    usual = [folder / FILE, folder / "tokenizer.model", *sorted([*folder.glob("*.tiktoken"), *folder.glob("*.model")])]
    for file in usual:
        if file.is_file():
            return file
    raise UserError(
        "no tokenizer.json, tokenizer.model or *.tiktoken", where=path, expected="one of them, or its folder"
    )


def files(path: str) -> list[Path]:
    """All files that decide what is taken over."""
    file = find(path)
    beside = file.with_name(CONFIG)
    return [file, beside] if beside.is_file() and holds(file) == "json" else [file]


def holds(file: Path) -> str:
    """What a file holds, by its first bytes: "json", "ranks" (also if damaged and so called) or "sentencepiece"."""
    with file.open("rb") as opened:
        start = opened.read(4096)
    if start.lstrip()[:1] == b"{":
        return "json"
    return "ranks" if file.suffix == ".tiktoken" or RANKS.match(start) else "sentencepiece"


def fits(path: str, *, split: str | None, specials: Sequence[str]) -> Path:
    """The file of a tokenizer, where enough is said, and not too much; its content is not read. Raises UserError."""
    file = find(path)
    kind = holds(file)
    if specials and kind != "ranks":
        raise UserError("names its own specials", where=str(file), expected="no tokenizer.specials beside it")
    if split is None and kind == "ranks":
        what = "tiktoken ranks name no pattern that splits text"
        raise UserError(what, where=str(file), expected="tokenizer.split, said in the recipe")
    return file


def take_over(path: str, *, split: str | None = None, specials: Sequence[str] = ()) -> Tokenizer:
    """The published tokenizer, its ids unchanged; ranks need a `split` pattern, and specials follow them.

    Raises UserError for a file that is none of the three, or cannot be taken over with the same ids.
    """
    file = fits(path, split=split, specials=specials)
    kind = holds(file)
    if kind == "json":
        return Tokenizer.load(file)
    if kind == "sentencepiece":
        return sentencepiece.tokenizer(file.read_bytes(), str(file))
    assert split is not None, "ranks have one"
    return tiktoken.tokenizer(file.read_bytes(), split, specials, str(file))
