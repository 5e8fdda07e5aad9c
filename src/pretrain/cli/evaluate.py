"""Perplexity and bits per byte of a model on text files, each a document."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain evaluate`."""
    parser.add_argument("model", help="a run directory, a checkpoint, or a released folder")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="UTF-8 text files")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints nats per token, perplexity and bits per byte."""
    from pretrain.base.errors import UserError
    from pretrain.evaluate.perplexity import likelihood
    from pretrain.run.open import open_model

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
    found = likelihood(model, tokenizer, texts, sequence=config.max_position_embeddings)
    table = {
        "nats_per_token": found.nats_per_token,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
        "tokens": found.tokens,
        "bytes": found.bytes,
        "documents": found.documents,
    }
    if arguments.json:
        print(json.dumps(table))
    else:
        for name, value in table.items():
            print(f"{name.replace('_', ' '):<15} {value:,.4f}" if isinstance(value, float) else f"{name:<15} {value:,}")
    return 0
