"""Personal data and secrets, replaced by their kind and counted (as Dolma, Soldaini et al. 2024, arXiv 2402.00159)."""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import ClassVar

from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key

# Every repetition is bounded, or of characters that cannot begin what follows: time is linear in the text.
VERSION = 2
PATTERNS = {
    "private_key": re.compile(
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,8000}?-----END [A-Z ]{0,30}KEY-----", re.DOTALL
    ),
    "key": re.compile(
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b"
        r"|\bxox[abprs]-[A-Za-z0-9-]{10,250}\b|\bsk-[A-Za-z0-9_-]{20,200}\b|\bAIza[0-9A-Za-z_-]{35}\b"
        r"|\bhf_[A-Za-z0-9]{30,50}\b|\beyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,2000}"
        r"|\bglpat-[A-Za-z0-9_-]{20,64}|\bnpm_[A-Za-z0-9]{36}\b|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,128}\b"
    ),
    "secret": re.compile(  # what a name calls a secret, which bare digits (a SHA-1) are not; a password in an address
        r"(?P<before>(?i:key|token|secret|password)[\"']?\s{0,3}[:=]\s{0,3}[\"']?)"
        r"(?:[A-Za-z0-9/+]{40}|[0-9a-f]{32}|[0-9a-f]{64})(?![A-Za-z0-9/+=])"
        r"|(?<=://)[^\s/:@]{1,64}:[^\s/:@]{1,128}(?=@)"
    ),
    "email": re.compile(
        r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]|'(?=\w)){0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"
    ),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "card": re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d.,-]\d|\d)"),
    "ip": re.compile(
        r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)|(?<![\w:.])[23][0-9a-fA-F]{3}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])"
    ),
    "phone": re.compile(
        r"(?<![\w+.,/-])(?:(?:\+\d{1,3}[ .-]?|(?<!\d )00[1-9]\d{0,2}[ .-])(?:\(\d{1,4}\)[ .-]?)?\d{1,4}"
        r"(?:[ .-]?\d{2,4}){2,4}"
        r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|(?<!\d )0\d{2,4} \d{3,4} \d{3,4}(?! \d))(?![\w/]|[.,-]\d)"
    ),
}


@dataclass(frozen=True)
class Redact:
    """Puts <EMAIL>, <IP>, <PHONE>, <KEY>, <SECRET>, <PRIVATE_KEY>, <IBAN>, <CARD> in place; nothing leads back."""

    masks: ClassVar[bool] = True  # what it takes out is shown in no report

    kinds: tuple[str, ...] = key("what is replaced", tuple(PATTERNS))

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in PATTERNS:
                raise ValueError(f"kinds: nothing is called {kind!r}; expected some of {', '.join(PATTERNS)}")

    def edit(self, document: Document) -> tuple[Document, dict[str, float]]:
        """The document without personal data, and how much of each kind there was."""
        text, counts = document.text, dict.fromkeys((f"{kind}s" for kind in PATTERNS), 0.0)
        for kind in PATTERNS:
            if kind not in self.kinds:
                continue

            def put(match: re.Match[str], kind: str = kind) -> str:
                if not is_one(kind, match[0]):
                    return match[0]
                counts[f"{kind}s"] += 1
                before = match["before"] or "" if kind == "secret" else ""
                return f"{before}<{kind.upper()}>"

            text = PATTERNS[kind].sub(put, text)
        return (document if text == document.text else replace(document, text=text)), counts

    def rules(self) -> list[Rule]:
        """None: what is found is taken out, the document stays."""
        return []


def is_one(kind: str, found: str) -> bool:
    """Whether what looks like one is one: checksums hold, an address is public."""
    if kind == "card":
        digits = [int(one) for one in found if one.isdigit()]
        doubled = [d if i % 2 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(reversed(digits), 1)]
        return digits[0] in (3, 4, 5, 6) and len(set(digits)) > 1 and sum(doubled) % 10 == 0
    if kind == "iban":
        bare = found.replace(" ", "")
        return 15 <= len(bare) <= 34 and int("".join(str(int(one, 36)) for one in bare[4:] + bare[:4])) % 97 == 1
    if kind == "ip":
        try:
            return ipaddress.ip_address(found).is_global
        except ValueError:
            return False
    if kind == "phone":
        return 7 <= sum(map(str.isdigit, found)) <= 15
    return True
