"""Where weights come from: lineage.json of a released folder, and the lines of it on the card."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrain.base.errors import DamagedError
from pretrain.base.files import digest_file, digest_of
from pretrain.base.units import show_count

FILE = "lineage.json"
Lineage = Mapping[str, Any]  # plain JSON; "made" says how: trained, averaged or imported


def of_folder(folder: Path) -> dict[str, Any]:
    """What names a released folder: its name, the digest of its config.json and weights, its own lineage if it has one.

    Raises DamagedError.
    """
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    try:
        own = json.loads((folder / FILE).read_bytes()) if (folder / FILE).is_file() else None
    except ValueError:
        raise DamagedError("cannot be read", where=str(folder / FILE), expected="JSON") from None
    return {
        "folder": folder.absolute().name,
        "files": digest_of({file.name: digest_file(file) for file in files}),
        "lineage": own,
    }


def lines(lineage: Lineage, depth: int = 0) -> Iterator[str]:
    """Markdown, an item for each step back, what it was made of below it."""
    item, made = "  " * depth + "- ", lineage["made"]
    if made == "trained":
        corpus = digest_of(lineage["corpus"])
        yield (
            f"{item}trained for {lineage['steps']:,} steps on {show_count(lineage['tokens'])} tokens: "
            f"corpus `{corpus}`, tokenizer `{lineage['tokenizer']}`, recipe `{lineage['recipe']}`"
        )
        if lineage.get("from"):
            yield from _folder(lineage["from"], depth + 1, "from the weights of")
    elif made == "averaged":
        yield f"{item}the mean of {len(lineage['of'])} checkpoints:"
        for one in lineage["of"]:
            yield from lines(one, depth + 1)
    else:
        yield from _folder(lineage["from"], depth, "imported from")


def _folder(said: Mapping[str, Any], depth: int, word: str) -> Iterator[str]:
    yield f"{'  ' * depth}- {word} {said['folder']}, files `{said['files']}`"
    if said["lineage"]:
        yield from lines(said["lineage"], depth + 1)
