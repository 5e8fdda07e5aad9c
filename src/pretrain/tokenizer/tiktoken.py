"""Takes over tiktoken's rank files (Llama 3, GPT-4, Qwen …): a token in base64 and its rank on every line."""

import base64
import binascii
from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models

from pretrain.base.errors import UserError
from pretrain.tokenizer.bpe import byte_level
from pretrain.tokenizer.letters import letters_of
from pretrain.tokenizer.tokenizer import Tokenizer


def ranks(data: bytes, where: str) -> dict[bytes, int]:
    """Tokens and their ranks. Raises UserError that names the line that is none."""
    out: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            out[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            shown = line[:40].decode("utf-8", "replace")
            what = f"{shown!r} is no token and rank"
            raise UserError(what, where=f"{where}:{number}", expected="base64, a space and a number") from None
    missing = 256 - len({token for token in out if len(token) == 1})
    if missing:
        raise UserError(f"{missing} of the 256 single bytes have no rank", where=where, expected="a tiktoken rank file")
    if sorted(out.values()) != list(range(len(out))):
        raise UserError("its ranks are not 0, 1, 2 … each once", where=where, expected="a tiktoken rank file")
    return out


def merges(table: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that makes a token, in the order in which tiktoken would merge them."""
    found = []
    for token, rank in table.items():
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        found += [(rank, table[a], table[b], a, b) for a, b in pairs if a in table and b in table]
    return [(a, b) for _, _, _, a, b in sorted(found)]


def tokenizer(data: bytes, split: str, specials: Sequence[str], where: str) -> Tokenizer:
    """The same ids as tiktoken's with this pattern; `specials` follow the ranks, in order. Raises UserError."""
    table = ranks(data, where)
    letters = {token: letters_of(token) for token in table}
    pairs = [(letters[a], letters[b]) for a, b in merges(table)]
    # A piece that is a token is that token, even where no merges lead to it: so tiktoken does.
    inner = tokenizers.Tokenizer(
        models.BPE({letters[token]: rank for token, rank in table.items()}, pairs, ignore_merges=True)
    )
    inner.pre_tokenizer, inner.decoder = byte_level(split), decoders.ByteLevel()
    inner.add_special_tokens(list(specials))
    if inner.get_vocab_size() != len(table) + len(set(specials)) or len(set(specials)) != len(specials):
        raise UserError("tokenizer.specials holds a name twice, or one that is a token", where=where)
    return Tokenizer(inner)
