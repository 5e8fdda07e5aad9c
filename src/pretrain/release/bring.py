"""A published folder into one of ours: every tensor checked, dtype and shards as asked, tokenizer and lineage kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import new_folder, verify, write
from pretrain.base.units import show_count
from pretrain.model.config import CONFIG, IS_CAUSAL, read_config
from pretrain.model.folder import GENERATION, checked, load_folder, write_model
from pretrain.model.tensor_files import NAMES, SHARD_BYTES, Tensors
from pretrain.model.upcycle import upcycle
from pretrain.model.weights import export, parameters
from pretrain.release.card import PRETRAIN, loads
from pretrain.release.lineage import FILE, Lineage, lines, of_folder
from pretrain.release.release import BOUNDS, accompany, agree
from pretrain.tokenizer import take_over
from pretrain.tokenizer.tokenizer import Tokenizer

PROOF = (2, 64)  # sequences and tokens that logits are compared on


@dataclass(frozen=True)
class Brought:
    """What was found in a folder; `logit_difference` where it was proved."""

    architecture: str
    parameters: int
    dtypes: dict[str, int]  # numbers kept in each
    ids: int | None  # of its tokenizer
    logit_difference: float | None


def bring(
    source: Path, to: Path | None, *, dtype: str | None = None, shard_bytes: int = SHARD_BYTES, proved: bool = False
) -> Brought:
    """Reads a folder tensor by tensor against its family's table; writes it to `to`, where that is said.

    Its own dtype is kept if none is said. Raises UserError, with the tensor and its file, and writes nothing then.
    """
    if (source / FILE).is_file():
        verify(source)
    family, config = read_config(source)
    dtypes = {NAMES.get(kind, kind.lower()): n for kind, n in Tensors(source).dtypes().items()}
    tokenizer = tokenizer_of(source, config)
    kept = max((name for name in dtypes if name in BOUNDS), key=lambda name: dtypes[name], default="float32")
    difference = None
    if to is None:
        for _ in checked(source, family, config, dtype):
            pass
    else:
        if to.exists() and to.samefile(source):
            raise UserError("that is the folder itself", where=str(to), expected="another one")
        dtype = dtype or kept
        lineage: Lineage = {"made": "imported", "pretrain": version("pretrain"), "from": of_folder(source)}
        table = json.loads((source / CONFIG).read_bytes())
        said = {name: value for name, value in table.items() if name.endswith("_token_id") or name == IS_CAUSAL}
        with new_folder(to) as partial:
            tensors = checked(source, family, config, dtype)
            write_model(partial, family, config, tensors, dtype=dtype, shard_bytes=shard_bytes, said=said)
            if (source / GENERATION).is_file():
                write(partial / GENERATION, (source / GENERATION).read_bytes())
            accompany(partial, tokenizer, _card(source, family, config, lineage), lineage)
            if proved:
                difference = _proof(source, partial, config, dtype, causal=bool(table.get(IS_CAUSAL, True)))
    count = parameters(family.weights(config), config.axes())
    ids = None if tokenizer is None else tokenizer.vocab_size
    return Brought(family.ARCHITECTURE, count, dtypes, ids, difference)


def mix(
    source: Path,
    to: Path,
    use: str,
    said: Mapping[str, object],
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    seed: int = 0,
) -> Brought:
    """A dense folder written to `to` as a mixture of the family `use`, each expert a copy (model/upcycle.py); what is
    `said` are keys of its config.json. Raises UserError."""
    _, dense = read_config(source)
    module, family, config = upcycle(source, use, seed, **said)
    dtypes = {NAMES.get(kind, kind.lower()): n for kind, n in Tensors(source).dtypes().items()}
    kept = dtype or max((name for name in dtypes if name in BOUNDS), key=lambda name: dtypes[name], default="float32")
    tokenizer, count = tokenizer_of(source, dense), parameters(family.weights(config), config.axes())
    lineage: Lineage = {"made": f"upcycled to {use}", "pretrain": version("pretrain"), "from": of_folder(source)}
    table = json.loads((source / CONFIG).read_bytes())
    ids = {name: value for name, value in table.items() if name.endswith("_token_id")}
    tensors = export(module, family.weights(config), config.axes(), getattr(torch, kept))
    use_lines = loads(family.ARCHITECTURE)
    first = f"A {family.ARCHITECTURE} of {show_count(count)} parameters, whose experts are copies: it has yet to learn."
    card = [f"# {to.absolute().name}", "", first, "", *use_lines, "", "## Lineage", "", *lines(lineage)]
    with new_folder(to) as partial:
        write_model(partial, family, config, tensors, dtype=kept, shard_bytes=shard_bytes, said=ids)
        accompany(partial, tokenizer, "\n".join(card) + "\n", lineage)
    return Brought(family.ARCHITECTURE, count, {kept: count}, None if tokenizer is None else tokenizer.vocab_size, None)


def tokenizer_of(folder: Path, config: Any) -> Tokenizer | None:
    """The tokenizer of a folder, if it has one. Raises UserError where its ids have no rows in the embeddings."""
    try:
        take_over.find(str(folder))
    except UserError:
        return None
    tokenizer = take_over.take_over(str(folder))
    if tokenizer.vocab_size > config.vocab_size:
        what = f"the tokenizer has {tokenizer.vocab_size:,} ids"
        raise UserError(what, where=str(folder), expected=f"at most vocab_size = {config.vocab_size:,} of config.json")
    return tokenizer


def _card(source: Path, family: Any, config: Any, lineage: Lineage) -> str:
    """The folder's own card, which knows what it was trained on; a short one where it has none."""
    own = source / "README.md"
    if own.is_file():
        try:
            return own.read_text("utf-8")
        except UnicodeDecodeError:
            raise DamagedError("cannot be read", where=str(own), expected="UTF-8") from None
    count = show_count(parameters(family.weights(config), config.axes()))
    use = PRETRAIN if family.MODEL_TYPE.startswith("pretrain_") else loads(family.ARCHITECTURE)
    said = [f"# {source.absolute().name}", "", f"A {family.ARCHITECTURE} of {count} parameters.", "", *use, ""]
    return "\n".join([*said, "## Lineage", "", *lines(lineage)]) + "\n"


def _proof(source: Path, written: Path, config: Any, dtype: str, *, causal: bool) -> float:
    """The largest difference of logits, of random tokens, between what was read and what was written."""
    (model, _, _), (back, _, _) = load_folder(source), load_folder(written)
    return agree(model, back, proof_tokens(config), dtype, written, causal=causal)


def proof_tokens(config: Any) -> Tensor:
    """Random ids [batch, seq] on which logits are compared."""
    shape = PROOF[0], min(PROOF[1], config.max_position_embeddings)
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
