"""The whole way in small: from the source of this Python's standard library to a released model, in minutes."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain quickstart`."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as train.seconds=60")
    parser.add_argument("--json", action="store_true", help="progress on standard error, then one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """`pretrain run quickstart`."""
    from pretrain.cli import run as command

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    said = ["quickstart", *arguments.overrides, *(["--json"] if arguments.json else [])]
    return command.run(parser.parse_args(said))
