"""Block lists of hosts and of words in addresses (as RefinedWeb, Penedo et al. 2023, arXiv 2306.01116, G.1)."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from pretrain.base.errors import UserError
from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Url:
    """`domains` and `words` are files with an entry a line (UT1's lists fit); a host is blocked with all below it."""

    domains: tuple[str, ...] = key("files of hosts, one a line", (), path=True)
    words: tuple[str, ...] = key("files of words, one a line", (), path=True)
    max_words: int = key("listed words that a URL may hold", 0, at_least=0)

    @cached_property
    def _domains(self) -> frozenset[str]:
        return frozenset(line.removeprefix("www.") for path in self.domains for line in _entries(path))

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(line for path in self.words for line in _entries(path))

    def measure(self, document: Document) -> dict[str, float]:
        """Whether the host is blocked, and how many words of the address are."""
        try:
            host = (urlsplit(document.url).hostname or "").removeprefix("www.")
        except ValueError:
            host = ""
        parts = host.split(".")
        blocked = any(".".join(parts[i:]) in self._domains for i in range(len(parts)))
        found = set(re.findall(r"[^\W_]+", document.url.lower())) & self._words
        return {"blocked_domain": float(blocked), "blocked_words": float(len(found))}

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("blocked_domain", "its host is on a block list", at_most=0),
            Rule("blocked_words", "words on a block list in its address", at_most=self.max_words),
        ]


def _entries(path: str) -> list[str]:
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        raise UserError("no such file", where=path, expected="a list, an entry a line") from None
    return [line.strip().lower() for line in lines if line.strip() and not line.startswith("#")]
