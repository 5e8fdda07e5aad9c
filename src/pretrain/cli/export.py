"""Writes a checkpoint, or the mean of several, as a folder that others load as it is."""

import argparse
import dataclasses
import json

from pretrain.cli.bring import add_form, shard_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain export`."""
    parser.add_argument("model", nargs="*", help="a run directory (its newest checkpoint), or a checkpoint")
    parser.add_argument("--average", nargs="+", metavar="MODEL", default=[], help="the mean of these instead")
    parser.add_argument("--to", metavar="DIR", help="write it there (exports/ of its run)")
    add_form(parser, "release.dtype of its recipe")


def run(arguments: argparse.Namespace) -> int:
    """Prints where it was written."""
    from pretrain.base.errors import UserError
    from pretrain.run.export import export

    if bool(arguments.model) == bool(arguments.average) or len(arguments.model) > 1 or len(arguments.average) == 1:
        raise UserError("what is exported is not clear", expected="one MODEL, or --average with two or more")
    form = {"dtype": arguments.dtype, "shard_bytes": shard_bytes(arguments.shard)}
    done = export(arguments.model or arguments.average, arguments.to, **form, proved=arguments.prove)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(done)))
        return 0
    if arguments.prove:
        print(f"its logits differ by {done.logit_difference:.1e} of the largest")
    print(f"written to {done.folder}")
    return 0
