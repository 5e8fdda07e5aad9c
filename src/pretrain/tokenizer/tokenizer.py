"""A tokenizer as the ecosystem keeps it: tokenizer.json, which is the truth, and tokenizer_config.json beside it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from pretrain.base.errors import UserError
from pretrain.base.files import digest, write

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
DOCUMENT_END = "<|document_end|>"
PAD = "<|pad|>"
ENDS = (DOCUMENT_END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")  # what published tokenizers call it


@dataclass(frozen=True)
class Tokenizer:
    """Token ids of text; the specials are ids that no text is ever encoded to."""

    inner: tokenizers.Tokenizer

    def __post_init__(self) -> None:
        self.inner.encode_special_tokens = True  # "<|pad|>" inside a document is seven ordinary characters

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """From a folder that holds a tokenizer.json, or from the file itself. Raises UserError."""
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        try:
            return cls(tokenizers.Tokenizer.from_str(file.read_text("utf-8")))
        except FileNotFoundError:
            raise UserError("no tokenizer.json", where=str(path), expected="a folder that holds one") from None
        except Exception as error:  # the library raises bare Exception for what it cannot read
            raise UserError(f"no readable tokenizer.json: {error}", where=str(file)) from None

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and the tokenizer_config.json that transformers.AutoTokenizer reads."""
        write(folder / FILE, self.text)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2**31 - 1,
            "eos_token": self._name(self.end),
            "pad_token": self._name(self.pad),
        }
        write(folder / CONFIG, json.dumps({k: v for k, v in config.items() if v is not None}, indent=2) + "\n")

    @cached_property
    def text(self) -> str:
        """The tokenizer.json, character for character."""
        return self.inner.to_str(pretty=True)

    @cached_property
    def digest(self) -> str:
        """Names the tokenizer by the content of its tokenizer.json."""
        return digest(self.text.encode())

    @cached_property
    def vocab_size(self) -> int:
        """Rows that an embedding needs."""
        return max(self.inner.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def specials(self) -> frozenset[int]:
        """Ids that stand for no text."""
        return frozenset(i for i, token in self.inner.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def end(self) -> int | None:
        """The id that ends a document, if there is one."""
        return next((i for name in ENDS if (i := self.inner.token_to_id(name)) is not None), None)

    @cached_property
    def pad(self) -> int | None:
        """The id of padding, if there is one."""
        return self.inner.token_to_id(PAD)

    def id(self, token: str) -> int | None:
        """The id of a token by its name."""
        return self.inner.token_to_id(token)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, int32 [tokens], with nothing added. Raises UserError for what the vocabulary cannot say."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, on all cores."""
        try:
            return [
                np.array(one.ids, np.int32)
                for one in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
            ]
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"a text cannot be encoded: {error}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without specials; bytes that are no UTF-8 become U+FFFD."""
        return self.inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes that ids stand for, whatever the ids (byte-level vocabularies)."""
        pieces = (self.inner.id_to_token(int(i)) for i in ids if int(i) not in self.specials)
        return b"".join(_bytes_of(piece) for piece in pieces if piece is not None)

    def _name(self, token: int | None) -> str | None:
        return None if token is None else self.inner.id_to_token(token)


def _byte_letters() -> dict[str, int]:
    """GPT-2's alphabet (Radford et al. 2019): a printable letter for every byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


LETTERS = _byte_letters()


def _bytes_of(piece: str) -> bytes:
    try:
        return bytes(LETTERS[letter] for letter in piece)
    except KeyError:
        return piece.encode()  # a vocabulary of characters
