"""Encoders faster than `tokenizers`, built from a tokenizer.json; which of them serves is for a proof to say.

Both come with the extra `fast`. gigatoken knows the published split patterns by heart and refuses any other; tiktoken
takes any pattern, but ranks its merges by their ids.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.optional import extra
from pretrain.tokenizer.letters import bytes_of
from pretrain.tokenizer.splits import SPLITS

Encode = Callable[[list[str]], list[np.ndarray]]
RENEW = 2**28  # characters after which gigatoken starts afresh: its cache of pieces has no bound (+100 MB in 30 MB)

HARD = (  # where encoders have been seen to differ
    *("", " ", "\n", "\r\n", "\t\t x", "a  b   c    d", " leading", "trailing  "),
    *("\n\n\n x\n\n", "a\r\n\r\n b\r\r", " \n \n ", "    def f(x):\n\t\treturn  x  # ok\n\n\n"),
    *("don't DON'T we'll WE'LL they'Ve I'm'd 'tis 's' '' 'S 'Re", "x'ſ 'ſ K'K", "'llama 've 'reason"),
    *("1 12 123 1234 12345678 3.14159 1,000,000 x1y22z333", "٣٤٥٦ १२३४ ⅷ ²³ ½ ①②③④ 𝟘𝟙𝟚𝟛", "0x1F 1e-9"),
    *("🙂🙂 👩\u200d👩\u200d👧\u200d👦 🇫🇷🇩🇪 👍🏽", "naïve nai\u0308ve", "\u0301\u0301a e\u0301\u0302"),
    *("İstanbul ǅungla ŉ ß ẞ ﬁ", "日本語の文章。中文，標點！한국어 문장", "ไทยไม่มีช่องว่าง"),
    *("مرحبا بالعالم", "שלום עולם", "हिन्दी में", "Ελληνικά Русский"),
    *("\u00a0x\u3000y\u2003z\u2028w\u0085v", "\ufeffx\u200bx\u00adx"),
    *("\x00\x01\x7f\x80", "\ud7ff\ue000\ufffd\U0010ffff", "!?!?...///\\\\ ,;:\n//"),
    *("HTTPResponse getHTTPResponse2JSON snake_case kebab-case", "a/b/c http://x.org/?q=1&r=%20"),
    *("-" * 70, "a" * 300, "é" * 150, " " * 130, "ab " * 90),
)


def gigatoken(text: str) -> Encode:
    """gigatoken's encoder of a tokenizer.json, its cache bounded."""
    library = extra("gigatoken", "fast")
    table = json.loads(text)
    table["added_tokens"] = [one for one in table["added_tokens"] if not one["special"]]  # it would find them in text
    plain = json.dumps(table)
    made, seen = library.Tokenizer.from_json(plain), 0

    def encode(texts: list[str]) -> list[np.ndarray]:
        nonlocal made, seen
        if not texts:
            return []
        if seen > RENEW:
            made, seen = library.Tokenizer.from_json(plain), 0
        seen += sum(map(len, texts))
        rows = made.encode_batch(texts).layout
        ids, bounds = np.asarray(rows.content.data).astype(np.int32), np.asarray(rows.offsets.data)
        return [ids[start:stop] for start, stop in pairwise(bounds)]

    return encode


def tiktoken(text: str) -> Encode:
    """tiktoken's encoder of a byte-level tokenizer.json. Raises UserError for one that is something else."""
    library = extra("tiktoken", "fast")
    table = json.loads(text)
    vocabulary: dict[str, int] = table["model"]["vocab"]
    learned = [one for one in table["added_tokens"] if not one["special"]]
    if table["normalizer"] is not None or learned or table["model"]["type"] != "BPE":
        raise UserError("it is no plain BPE")
    pattern = _pattern(table["pre_tokenizer"])
    merged = [vocabulary["".join(pair)] for pair in table["model"]["merges"]]
    if merged != sorted(merged):
        raise UserError("its merges are not ranked by their ids")
    specials = {one["content"] for one in table["added_tokens"]}
    ranks = {bytes_of(piece): i for piece, i in vocabulary.items() if piece not in specials}
    made = library.Encoding("", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(texts: list[str]) -> list[np.ndarray]:
        for text in texts:
            text.encode()  # raises for half a surrogate pair, which it would replace
        return [np.array(ids, np.int32) for ids in made.encode_ordinary_batch(texts)]

    return encode


ENCODERS = {"gigatoken": gigatoken, "tiktoken": tiktoken}  # the fastest first


def _pattern(table: dict[str, Any] | None) -> str:
    """The one pattern that a byte-level tokenizer.json splits by."""
    steps = (table or {}).get("pretokenizers", [table])
    level = steps[-1] or {}
    if level.get("type") == "ByteLevel" and not level["add_prefix_space"]:
        if len(steps) == 1 and level["use_regex"]:
            return SPLITS["gpt2"]
        first = steps[0]
        isolated = first.get("behavior") == "Isolated" and not first.get("invert")
        if len(steps) == 2 and not level["use_regex"] and isolated and "Regex" in first["pattern"]:
            return first["pattern"]["Regex"]
    raise UserError("its text is not split by one pattern into bytes")
