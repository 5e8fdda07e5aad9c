"""What befalls a run, a function each: it starts the command, does harm to its processes, and waits for the end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.checkpoint.save import step_of
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Slow
from pretrain.events.read import last
from pretrain.faults import inject
from pretrain.faults.judge import Expected, Facts, facts_of

LOOK_SECONDS = 0.005  # between two looks of what the run has written
RHYTHM_SECONDS = 1.0  # between two looks for what a log says of a slow rank
MOST_SECONDS, TIMES = 300.0, 10  # in which a run ends: so many, and so many times what it takes without a fault
STORE, OUTPUT = "store", "output.txt"


@dataclass
class Trial:
    """A run in a folder of its own, `chaos/<scenario>`, and the commands that were started for it."""

    folder: Path
    command: tuple[str, ...]  # recipe and overrides
    ranks: int
    plain: Facts = field(default_factory=lambda: Facts((), [], {}))
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def run(self) -> RunDirectory:
        """Its run directory, once there is one."""
        return RunDirectory(next((self.folder / "runs").glob("*"), self.folder / "runs" / "none"))

    def start(self, *options: str, entry: Sequence[str] = ("-m", "pretrain")) -> int:
        """Starts `pretrain run` up to the end of training, on all ranks if not said; the process of its agent."""
        ranks = options or ("--ranks", str(self.ranks))
        command = [sys.executable, *entry, "run", *self.command, "--to", "train", *ranks]
        with (self.folder / OUTPUT).open("ab") as output:
            one = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        self.started.append(one)
        return one.pid

    def until(self, there: Callable[[], bool], what: str) -> None:
        """Waits until something is there. Raises UserError where the run ends before."""
        while not there():
            if all(one.poll() is not None for one in self.started):
                shown, expected = f"the run ended before {what}", "a recipe that saves several times"
                raise UserError(shown, where=str(self.folder / OUTPUT), expected=expected)
            time.sleep(LOOK_SECONDS)

    def until_saved(self, checkpoints: int = 1) -> None:
        """Waits for so many checkpoints."""
        self.until(lambda: len([*self.run.checkpoints.glob("step-*")]) >= checkpoints, f"{checkpoints} checkpoints")

    def end(self, agent: int) -> int | None:
        """The exit code of a command, none if it does not end in time."""
        (one,) = (one for one in self.started if one.pid == agent)
        try:
            return one.wait(MOST_SECONDS + TIMES * self.plain.seconds)
        except subprocess.TimeoutExpired:
            return None

    def last(self, agent: int) -> int:
        """The process of the last rank that an agent started."""
        ranks: dict[int, int] = {}
        self.until(lambda: bool(ranks.update(inject.ranks_of(agent)) or ranks), "its ranks were there")
        return ranks[max(ranks)]

    def clear(self) -> None:
        """Ends what still runs."""
        for one in self.started:
            if one.poll() is None:
                end_node(one.pid)
                one.wait()


@dataclass(frozen=True)
class Scenario:
    """What is done in words and as a function, which returns exit codes, and what is expected of it. `layout` are
    overrides that the run without the fault has as well."""

    what: str
    act: Callable[[Trial], Sequence[int | None]]
    expected: Expected = field(default_factory=Expected)
    options: tuple[str, ...] = ()
    layout: tuple[str, ...] = ()


def end_node(agent: int) -> None:
    """A machine is gone: its agent and all its ranks, by SIGKILL."""
    for pid in (agent, *inject.ranks_of(agent).values()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def blow(harm: Callable[[int], object]) -> Callable[[Trial], Sequence[int | None]]:
    """A harm to the process of the last rank, after the first checkpoint."""

    def act(trial: Trial) -> Sequence[int | None]:
        agent = trial.start()
        trial.until_saved()
        harm(trial.last(agent))
        return [trial.end(agent)]

    return act


def terminate(trial: Trial) -> Sequence[int | None]:
    """Stopped by its scheduler, and run again."""
    agent = trial.start()
    trial.until_saved()
    os.kill(agent, signal.SIGTERM)
    return [trial.end(agent), trial.end(trial.start())]


def interrupted_save(trial: Trial) -> Sequence[int | None]:
    """The leading rank ends while its part of a checkpoint is written; again, where the save was faster."""
    agent = trial.start()
    trial.until_saved()

    def partial() -> bool:
        return any(trial.run.checkpoints.glob(".step-*.partial"))

    while True:
        leading = inject.ranks_of(agent).get(0)
        trial.until(partial, "a save was interrupted")
        if leading is not None:
            with suppress(ProcessLookupError):
                os.kill(leading, signal.SIGKILL)
            if partial():
                return [trial.end(agent)]


def damaged(trial: Trial) -> Sequence[int | None]:
    """Stopped, and run again with a newest checkpoint of which a byte has changed."""
    agent = trial.start()
    trial.until_saved(2)
    os.kill(agent, signal.SIGTERM)
    stopped = trial.end(agent)
    newest = max(trial.run.checkpoints.glob("step-*"), key=step_of)
    inject.flip_byte(max(newest.glob("model*.safetensors"), key=lambda path: path.stat().st_size))
    return [stopped, trial.end(trial.start())]


def slow(trial: Trial) -> Sequence[int | None]:
    """A rank that is often stopped for a moment, until the log names it or the run ends."""
    agent = trial.start()
    trial.until_saved()
    one, pid = trial.started[-1], trial.last(agent)
    while one.poll() is None and last(trial.run, Slow) is None:
        inject.slow_down(pid, RHYTHM_SECONDS)
    return [trial.end(agent)]


def fewer(trial: Trial) -> Sequence[int | None]:
    """Two agents, as of two machines that meet at the first; the second machine is gone for good."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    options = ("--nodes", "1:2", "--meet", f"localhost:{port}", "--ranks", str(trial.ranks // 2))
    agent = trial.start(*options)
    trial.until(lambda: _listens(port), "its agents met")  # the first agent to come is where they meet
    other = trial.start(*options)
    trial.until_saved()
    end_node(other)
    return [trial.end(agent)]


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("localhost", port), LOOK_SECONDS):
        return True
    return False


def disk_full(trial: Trial) -> Sequence[int | None]:
    """The last rank can write no file as large as its part of a checkpoint, until it is started again."""
    agent = trial.start()
    trial.until_saved()
    newest = max(trial.run.checkpoints.glob("step-*"), key=step_of)
    sizes = [path.stat().st_size for path in newest.glob(f"*{trial.ranks - 1:05d}.safetensors")]
    if not sizes:
        raise UserError("the last rank writes no part of a checkpoint", expected="a layout that shards")
    inject.fill_disk(trial.last(agent), max(sizes) // 2)
    return [trial.end(agent)]


def lost_shard(trial: Trial) -> Sequence[int | None]:
    """A file of tokens is gone, and so is a rank: what is started again finds it missing."""
    agent = trial.start()
    trial.until_saved()
    next((trial.folder / STORE).glob("tokens-*/*.shard")).unlink()
    os.kill(trial.last(agent), signal.SIGKILL)
    return [trial.end(agent)]


def inside(harm: str) -> Callable[[Trial], Sequence[int | None]]:
    """A harm that the last rank does to itself, half way."""

    def act(trial: Trial) -> Sequence[int | None]:
        entry = ("-m", "pretrain.faults.inject", harm, str(trial.plain.step // 2))
        return [trial.end(trial.start(entry=entry))]

    return act


SCENARIOS = {
    "kill": Scenario(
        "SIGKILL to a rank, after the first checkpoint",
        blow(lambda pid: os.kill(pid, signal.SIGKILL)),
        Expected(names=(r"rank \d+ on \S+ ended by SIGKILL", "goes on from step")),
    ),
    "hang": Scenario(
        "SIGSTOP to a rank: it is there and does nothing",
        blow(lambda pid: os.kill(pid, signal.SIGSTOP)),
        Expected(names=(r"no step in \d+ s .*rank \d+ on .* says nothing", "it hung", "goes on from step")),
        ("run.hang=10",),
    ),
    "terminate": Scenario(
        "SIGTERM to the command; then it is run again",
        terminate,
        Expected((130, 0), names=("goes on from step",)),
    ),
    "interrupted-save": Scenario(
        "SIGKILL to the leading rank while a checkpoint is written",
        interrupted_save,
        Expected(names=(r"rank 0 on \S+ ended by SIGKILL", "goes on from step")),
    ),
    "damaged": Scenario(
        "stopped; a byte of the newest checkpoint is inverted; run again",
        damaged,
        Expected((130, 0), names=("a checkpoint is damaged, and set aside", "goes on from step")),
    ),
    "slow": Scenario(
        "SIGSTOP and SIGCONT to a rank, 30 ms of every 40",
        slow,
        Expected(names=(r"rank \d+ on \S+ is slow: .*\([\d.]+ times",)),
    ),
    "network": Scenario(
        "all TCP connections of a rank are shut",
        blow(inject.cut_off),
        Expected(names=(r"rank \d+ on \S+ ended by", "goes on from step")),
    ),
    "fewer": Scenario(
        "two nodes, one of which is killed for good; the other goes on alone, with the same global batch",
        fewer,
        Expected(weights="rounding", names=("saved on", "goes on from step")),
    ),
    "disk-full": Scenario(
        "a rank can write no file of a checkpoint's size (RLIMIT_FSIZE), until it is started again",
        disk_full,
        Expected(names=("ended by exit code 1", "goes on from step")),
    ),
    "nan": Scenario(
        "half way, a rank's loss and gradients are not numbers",
        inside("nan"),
        Expected(weights="skipped", names=("are passed over: loss nan",)),
    ),
    "spike": Scenario(
        "half way, a rank's loss and gradients are a thousand times what they are",
        inside("spike"),
        Expected(weights="skipped", names=("are passed over: gradient norm",)),
        layout=("train.guard.window=16",),
    ),
    "corruption": Scenario(
        "half way, a bit of a rank's copy of a weight flips",
        inside("corruption"),
        Expected(names=(r"rank \d+ .*differ.* in the bits of", "goes on from step")),
        layout=("parallel.replicate=2", "train.guard.compare_every=1"),
    ),
    "lost-shard": Scenario(
        "a shard of tokens is deleted, and a rank killed",
        lost_shard,
        Expected(names=("ended by SIGKILL", "are made again: its folder is damaged", "goes on from step")),
    ),
}


class Chaos:
    """Runs scenarios of a recipe under a folder, each beside the run without a fault, which is made once a layout."""

    def __init__(
        self, folder: Path, recipe: str, overrides: Sequence[str], ranks: int, said: Collection[str] = ()
    ) -> None:
        self._folder, self._recipe, self._overrides, self._ranks = folder, recipe, tuple(overrides), ranks
        self._said = said  # keys of which a recipe keeps its own value
        self._plain: dict[tuple[str, ...], Facts] = {}

    def plain(self, layout: tuple[str, ...] = ()) -> Facts:
        """What a run leaves that nothing befalls. Raises UserError where it fails."""
        if layout not in self._plain:
            name = "plain" + (f"-{len(self._plain)}" if layout else "")
            facts = self._run(name, layout, lambda trial: [trial.end(trial.start())], Facts((), [], {}))
            if facts.exits != (0,):
                output = self._folder / name / OUTPUT
                *_, last = ["", *output.read_text().splitlines()]
                what = f"the run fails without a fault, with exit code {facts.exits[0]}: {last}"
                raise UserError(what, where=str(output), expected="a recipe that runs")
            self._plain[layout] = facts
        return self._plain[layout]

    def hurt(self, name: str) -> Facts:
        """What a run leaves that a scenario befalls."""
        one = SCENARIOS[name]
        options = [option for option in one.options if option.partition("=")[0] not in self._said]
        return self._run(name, (*one.layout, *options), one.act, self.plain(one.layout))

    def _run(
        self, name: str, options: tuple[str, ...], act: Callable[[Trial], Sequence[int | None]], plain: Facts
    ) -> Facts:
        folder, store = self._folder / name, self._folder / STORE
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store.mkdir(exist_ok=True)
        if name == "lost-shard":
            shutil.copytree(store, folder / STORE)
        else:
            (folder / STORE).symlink_to(Path("..") / STORE, target_is_directory=True)
        trial = Trial(folder, (self._recipe, *options, *self._overrides), self._ranks, plain)
        try:
            exits = act(trial)
        finally:
            trial.clear()
        return facts_of(trial.run, exits)
