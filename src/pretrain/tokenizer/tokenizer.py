"""A tokenizer as the ecosystem keeps it: tokenizer.json, which is the truth, and tokenizer_config.json beside it."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers

from pretrain.base.errors import UserError
from pretrain.base.files import digest, write
from pretrain.tokenizer.fast import ENCODERS, HARD, Encode
from pretrain.tokenizer.letters import BYTES, bytes_of
from pretrain.tokenizer.specials import DOCUMENT_END, MASK, PAD

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
ENDS = (DOCUMENT_END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")  # as published ones call it
PADS = (PAD, "<pad>", "[PAD]", "<|finetune_right_pad_id|>")
MASKS = (MASK, "<mask>", "[MASK]")
SURROGATE = re.compile("[\ud800-\udfff]")
FALLBACK = re.compile("<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Tokenizer:
    """Token ids of text; the specials are ids that no text is ever encoded to.

    Text is Unicode: half a surrogate pair, which UTF-8 cannot say, is refused, never replaced.
    """

    inner: tokenizers.Tokenizer
    config: Mapping[str, object] = field(default_factory=dict, hash=False)  # a published tokenizer_config.json
    encoder: str = "tokenizers"  # the library that encodes; another one only where `faster` found it equal

    def __post_init__(self) -> None:
        self.inner.encode_special_tokens = True  # "<|pad|>" inside a document is seven ordinary characters

    def __reduce__(self) -> tuple[type, tuple]:
        """Travels to other processes without what it has cached."""
        return Tokenizer, (self.inner, dict(self.config), self.encoder)

    @classmethod
    def load(cls, path: Path | str, *, encoder: str = "tokenizers") -> "Tokenizer":
        """From a folder that holds a tokenizer.json, or from the file itself. Raises UserError.

        `encoder` is what another process found equal (`Tokenizer.encoder`), to serve here as well.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        beside = file.with_name(CONFIG)
        try:
            inner = tokenizers.Tokenizer.from_str(file.read_text("utf-8"))
            config = dict(json.loads(beside.read_bytes())) if beside.exists() else {}
        except FileNotFoundError:
            raise UserError("no tokenizer.json", where=str(path), expected="a folder that holds one") from None
        except Exception as error:  # the library raises bare Exception for what it cannot read
            raise UserError(f"no readable tokenizer.json: {error}", where=str(file)) from None
        config.pop("auto_map", None)  # names code to run
        return cls(inner, config, encoder)

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and the tokenizer_config.json that transformers.AutoTokenizer reads."""
        write(folder / FILE, self.text)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2**31 - 1,
            "bos_token": self._name(self.end),  # what ends a document stands before the next: config.json says so, too
            "eos_token": self._name(self.end),
            "pad_token": self._name(self.pad),
            "mask_token": self._name(self.mask),
            **self.config,
        }
        write(folder / CONFIG, json.dumps({k: v for k, v in config.items() if v is not None}, indent=2) + "\n")

    @cached_property
    def text(self) -> str:
        """The tokenizer.json, character for character."""
        return self.inner.to_str(pretty=True)

    @cached_property
    def digest(self) -> str:
        """Names the tokenizer by its tokenizer.json, and by its document's end where that has an unusual name."""
        end = "" if self.end == self._first(ENDS) else f"\0{self._name(self.end)}"
        return digest(f"{self.text}{end}".encode())

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
        """The id that ends a document, if there is one: what tokenizer_config.json says, or a usual name."""
        said = self.config.get("eos_token")
        name = said.get("content") if isinstance(said, dict) else said
        return self._first(ENDS if name is None else (str(name), *ENDS))

    @cached_property
    def pad(self) -> int | None:
        """The id of padding, if there is one."""
        return self._first(PADS)

    @cached_property
    def mask(self) -> int | None:
        """The id that hides a token from a masked model, if there is one."""
        return self._first(MASKS)

    def id(self, token: str) -> int | None:
        """The id of a token by its name."""
        return self.inner.token_to_id(token)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, int32 [tokens], with nothing added. Raises UserError for what the vocabulary cannot say."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32 [tokens], on all cores."""
        some = list(texts)
        try:
            return self._encode(some)
        except Exception as error:  # the libraries raise bare Exception
            for i, text in enumerate(some):
                if half := SURROGATE.search(text):
                    what = f"text {i} holds half a surrogate pair, U+{ord(half[0]):04X}, at character {half.start()}"
                    raise UserError(what, expected="Unicode that UTF-8 can say") from None
            raise UserError(f"a text cannot be encoded: {error}") from None

    def faster(self, texts: Iterable[str]) -> tuple["Tokenizer", str]:
        """The same tokenizer served by the first faster encoder with the same ids on all texts; a sentence on why.

        Beside the texts stand `HARD` ones, and the names of the specials as words.
        """
        sample = [*HARD, *(f"a{self._name(i)} b" for i in sorted(self.specials)[:64]), *texts]
        truth, refused = replace(self, encoder="tokenizers").encode_batch(sample), list[str]()
        for name in ENCODERS:
            other = replace(self, encoder=name)
            try:
                found = other._encode(sample)
            except Exception as error:  # not installed, or a tokenizer that it does not know
                said = (str(error).splitlines() or [type(error).__name__])[0]
                refused.append(said if said.startswith(name) else f"{name}: {said}")
                continue
            wrong = [i for i, (a, b) in enumerate(zip(truth, found, strict=True)) if not np.array_equal(a, b)]
            if not wrong:
                size = sum(map(len, sample))
                return other, f"{name} encodes: equal to tokenizers on {len(sample):,} texts ({size:,} characters)"
            refused.append(f"{name} differs on {len(wrong)} of {len(sample)} texts, such as {sample[wrong[0]][:40]!r}")
        return self, f"tokenizers encodes ({'; '.join(refused)})"

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without specials; bytes that are no UTF-8 become U+FFFD."""
        return self.inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes that ids stand for, one after the other, whatever the ids; unknown ones stand for nothing.

        WordPiece has forgotten which words stood close together: each of its words comes after a space.
        """
        known, size = self.pieces, len(self.pieces)
        return b"".join(known[i] for i in map(int, ids) if 0 <= i < size)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of every id; of a special, none."""
        added = self.inner.get_added_tokens_decoder()  # these are written as they are, not in letters for bytes
        out = [b""] * self.vocab_size
        kinds = self.decoders
        for piece, i in self.inner.get_vocab(with_added_tokens=True).items():
            if i not in self.specials:
                out[i] = _bytes_of(piece, kinds - {"ByteLevel"} if i in added else kinds)
        return out

    @cached_property
    def decoders(self) -> frozenset[str]:
        """The kinds of step that turn ids into text: "ByteLevel", "WordPiece" …"""
        return frozenset(_types(json.loads(self.text)["decoder"]))

    @cached_property
    def _encode(self) -> Encode:
        if self.encoder != "tokenizers":
            return ENCODERS[self.encoder](self.text)
        encode = self.inner.encode_batch_fast
        return lambda texts: [np.array(one.ids, np.int32) for one in encode(texts, add_special_tokens=False)]

    def _first(self, names: Iterable[str]) -> int | None:
        return next((i for name in names if (i := self.inner.token_to_id(name)) is not None), None)

    def _name(self, token: int | None) -> str | None:
        return None if token is None else self.inner.id_to_token(token)


def _types(table: Mapping[str, object] | None) -> Iterator[str]:
    """The kinds of step in a decoder's table."""
    if table is not None:
        yield str(table["type"])
        for inner in table.get("decoders", ()):  # type: ignore[attr-defined]
            yield from _types(inner)


def _bytes_of(piece: str, kinds: frozenset[str]) -> bytes:
    if "ByteLevel" in kinds and BYTES.keys() >= set(piece):
        return bytes_of(piece)
    if "WordPiece" in kinds:
        return (piece[2:] if piece.startswith("##") else f" {piece}").encode()
    if "ByteFallback" in kinds and (found := FALLBACK.fullmatch(piece)):
        return bytes([int(found[1], 16)])
    return (piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") if kinds & {"Metaspace", "Replace"} else piece).encode()
