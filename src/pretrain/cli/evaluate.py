"""Perplexity and bits per byte of a model on text files, each a document."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from pretrain.recipe.schema import Leaf
    from pretrain.tokenizer.tokenizer import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain evaluate`."""
    parser.add_argument("model", help="a run directory, a checkpoint, or a released folder")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="UTF-8 text files")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints nats per token, perplexity and bits per byte; of a model that is not causal, its objective's losses."""
    from pretrain.base.errors import UserError
    from pretrain.evaluate.perplexity import likelihood
    from pretrain.run.open import objective_of, open_model

    texts = []
    for name in arguments.data:
        try:
            texts.append(Path(name).read_text("utf-8"))
        except OSError as error:
            raise UserError(str(error.strerror).lower(), where=name, expected="a text file") from None
        except UnicodeDecodeError:
            raise UserError("not UTF-8", where=name, expected="a text file") from None
    if not any(texts):
        raise UserError("there is no text in it", where=", ".join(arguments.data), expected="a text file")
    model, _, config, tokenizer = open_model(arguments.model)
    objective, causal = objective_of(arguments.model)
    if not causal:
        return _show(_losses(model, tokenizer, objective, texts, config, arguments.model), arguments.json)
    found = likelihood(model, tokenizer, texts, sequence=config.max_position_embeddings)
    table: dict[str, float] = {
        "nats_per_token": found.nats_per_token,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
        "tokens": found.tokens,
        "bytes": found.bytes,
        "documents": found.documents,
    }
    return _show(table, arguments.json)


def _losses(
    model: "nn.Module", tokenizer: "Tokenizer", leaf: "Leaf | None", texts: list[str], config: Any, where: str
) -> dict[str, float]:
    """Losses under the objective that a model of both sides learned by; it gives no likelihood of a text."""
    import numpy as np

    from pretrain.base.errors import UserError
    from pretrain.evaluate.held_out import held_out_loss
    from pretrain.order.vocabulary import vocabulary

    if leaf is None:
        what = "it was trained to fill in tokens from both sides, and gives no likelihood of a text"
        raise UserError(what, where=where, expected="its run directory or a checkpoint, which say by what objective")
    ends = np.array([] if tokenizer.end is None else [tokenizer.end], np.int32)
    documents = [np.concatenate([ids, ends]) for ids in tokenizer.encode_batch(texts)]
    size = vocabulary(tokenizer, config.vocab_size)
    length = getattr(config, "longest", config.max_position_embeddings)
    losses = held_out_loss(model, leaf.bind(), size, documents, sequence=length, seed=0, apart=True)
    return {f"loss, {name}": value for name, value in losses.items()}


def _show(table: dict[str, float], as_json: bool) -> int:
    if as_json:
        print(json.dumps(table))
    else:
        for name, value in table.items():
            print(f"{name.replace('_', ' '):<15} {value:,.4f}" if isinstance(value, float) else f"{name:<15} {value:,}")
    return 0
