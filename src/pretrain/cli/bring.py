"""Checks a published folder tensor by tensor, and writes it as one of ours: dtype, shards, tokenizer, lineage."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain import`."""
    parser.add_argument("folder", help="config.json, safetensors and what lies beside")
    parser.add_argument("--to", metavar="DIR", help="write it there (only checked, if not said)")
    parser.add_argument("--upcycle", metavar="FAMILY", help="write it as a mixture of experts that are copies")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="of the mixture's config.json, with --upcycle")
    add_form(parser, "the folder's own")


def add_form(parser: argparse.ArgumentParser, default: str) -> None:
    """How weights are kept, for `import` and `export`."""
    parser.add_argument("--dtype", choices=DTYPES, help=f"of the weights ({default})")
    parser.add_argument("--shard", metavar="SIZE", default="5GB", help="most bytes in a file of weights (5GB)")
    parser.add_argument("--prove", action="store_true", help="load both sides whole, and compare their logits")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def shard_bytes(said: str) -> int:
    """Bytes of --shard. Raises UserError."""
    from pretrain.base.errors import UserError
    from pretrain.base.units import size

    if (most := size(said)) < 1:
        raise UserError(f"--shard {said}", expected="at least a byte")
    return most


def keys(said: Sequence[str]) -> dict[str, object]:
    """KEY=VALUE, values as in JSON. Raises UserError."""
    from pretrain.base.errors import UserError

    found = {}
    for one in said:
        name, equals, value = one.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            raise UserError(one, expected="KEY=VALUE" if not equals else f"{name}= a number or true or false") from None
    return found


def run(arguments: argparse.Namespace) -> int:
    """Prints what the folder holds."""
    from pretrain.base.errors import UserError
    from pretrain.base.units import show_count
    from pretrain.release.bring import bring, mix

    if (arguments.keys and not arguments.upcycle) or (arguments.upcycle and not arguments.to):
        raise UserError("a mixture is written", expected="--to DIR and --upcycle FAMILY, then KEY=VALUE")
    if arguments.upcycle and arguments.prove:
        raise UserError("--prove compares the same model twice", expected="--upcycle without it")
    if arguments.prove and not arguments.to:
        raise UserError("--prove compares two folders", expected="--to DIR beside it")
    to = Path(arguments.to) if arguments.to else None
    form = {"dtype": arguments.dtype, "shard_bytes": shard_bytes(arguments.shard)}
    if to is not None and arguments.upcycle:
        found = mix(Path(arguments.folder), to, arguments.upcycle, keys(arguments.keys), **form)
    else:
        found = bring(Path(arguments.folder), to, **form, proved=arguments.prove)
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(found), "folder": arguments.to}))
        return 0
    kept = ", ".join(f"{show_count(count)} in {dtype}" for dtype, count in found.dtypes.items())
    print(f"{found.architecture}, {found.parameters:,} parameters ({kept}); every tensor is there, fits and is finite")
    print("no tokenizer" if found.ids is None else f"tokenizer of {found.ids:,} ids")
    if found.logit_difference is not None:
        print(f"its logits differ by {found.logit_difference:.1e} of the largest")
    if to is not None:
        print(f"written to {to}")
    return 0
