"""`pretrain COMMAND …`: a table of commands, each imported when it is chosen."""

import argparse
import importlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pretrain.base.errors import DamagedError, DiskFullError, MachineError, UserError, nearest
from pretrain.parallel import launch

COMMANDS = {
    "quickstart": "the whole way in small, on text that this machine has",
    "run": "every stage of a recipe whose inputs changed; resumes by itself",
    "launch": "the job that runs a recipe on a cluster: slurm or k8s",
    "check": "a recipe with the origin of every value; what is wrong with it, before any work",
    "plan": "what one of many ranks would hold and say in a step, rehearsed in one process",
    "recut": "what other thresholds would keep of a corpus, without a rerun",
    "inspect": "what a corpus, a tokenizer or a model holds; a page with --html",
    "trace": "the documents of a step, and the steps that saw a page",
    "ablate": "the same small model on several cuts of data, and which is better",
    "chaos": "a recipe with a fault, and without: whether it ends the same",
    "doctor": "what this machine has and can do, measured, and what would go wrong",
    "import": "a published folder, checked tensor by tensor, and written as one of ours",
    "export": "a checkpoint, or the mean of several, as a folder that others load",
    "sample": "text from a run, a checkpoint or a released model",
    "evaluate": "perplexity and bits per byte of a model on files",
}

FILES = {"import": "bring"}  # commands whose file cannot have their name
RESUMABLE = ("quickstart", "run", "ablate")
FIRST_SECONDS = 3.0  # in which the leading rank says what is wrong, where that is so on all


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, options among them in any place. Raises UserError with the nearest option."""
        found, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            name = unknown[0].partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            what = f"no option {name}" if name.startswith("-") else f"{name} is one argument too many"
            raise UserError(what, expected=f"what {self.prog} --help says", near=nearest(name, known))
        return found

    def error(self, message: str) -> NoReturn:
        """What argparse found wrong."""
        raise UserError(message, expected=f"what {self.prog} --help says")


def positive(text: str) -> int:
    """A number of what there must be one of at least. Raises what argparse says in words."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command: 0 done, 1 failed, 2 the user's mistake, 130 interrupted and resumable."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in ([], ["-h"], ["--help"], ["help"]):
        print(overview())
        return 0
    if given == ["--version"]:
        from pretrain import __version__

        print(f"pretrain {__version__}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        print(
            f"pretrain: no command {name!r}" + (f"; nearest: {near}" if near else "") + "; see pretrain --help",
            file=sys.stderr,
        )
        return 2
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # else torch's idle threads burn what other processes need
    try:
        module = importlib.import_module(f"pretrain.cli.{FILES.get(name, name)}")
        parser = Parser(prog=f"pretrain {name}", description=module.__doc__, allow_abbrev=False)
        module.add_arguments(parser)
        status = int(module.run(parser.parse(rest)))
        sys.stdout.flush()
        return status
    except UserError as error:
        if launch.rank() > 0 and not isinstance(error, DamagedError):  # which is of what it alone reads
            time.sleep(FIRST_SECONDS)  # the leading rank speaks for all, and this one ends with it
        print(f"pretrain: {error}", file=sys.stderr)
        return 1 if launch.started() and isinstance(error, DiskFullError) else 2  # after which its agent tries again
    except MachineError as error:
        if launch.rank() == 0:
            print(f"pretrain: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = f"; this goes on from what is saved: {program()} {shlex.join(given)}" if name in RESUMABLE else ""
        if launch.rank() == 0:
            print(f"pretrain: interrupted{again}", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if not launch.lost(error):
            raise
        print(f"pretrain: rank {launch.rank()} on {launch.host()} has lost another rank, and ends", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `pretrain check … | head`: what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def program() -> str:
    """What a person types for this command: its path where it is not on the PATH, as in a venv that is not active."""
    here = Path(sys.argv[0])
    found = shutil.which("pretrain")
    if here.name != "pretrain" or (found and Path(found).absolute() == here.absolute()):
        return "pretrain"
    return str(here.absolute().relative_to(Path.cwd()) if here.absolute().is_relative_to(Path.cwd()) else here)


def overview() -> str:
    """What `pretrain --help` prints."""
    lines = [f"  {name:<11} {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        ["usage: pretrain COMMAND …", "", "Raw data to a released foundation model, in one recipe.", "", *lines, "",
         "pretrain COMMAND --help says more; start with: pretrain quickstart"]
    )  # fmt: skip


def entry() -> None:
    """The console script."""
    sys.exit(main())
