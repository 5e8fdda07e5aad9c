"""A job for a cluster's own scheduler: what it trains, and on what."""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.base.errors import MachineError, UserError
from pretrain.recipe.launch import Launch
from pretrain.recipe.recipe import Recipe
from pretrain.run.layout import layout_of

NOTICE = 60  # seconds between SIGTERM and the end, in which a run saves and leaves
RUNS = Path("runs")  # beside recipes and store/, in the folder where a job is submitted


@dataclass(frozen=True)
class Job:
    """A recipe as it was said on a command line, its name, and the machines that it shall have."""

    name: str
    said: tuple[str, ...]  # the recipe and its overrides, but for those of the job itself
    launch: Launch
    health: str  # run.health

    @property
    def folder(self) -> Path:
        """The run's, relative to where the job is submitted."""
        return RUNS / self.name

    @property
    def words(self) -> str:
        """The recipe and its overrides, as a shell reads them."""
        return shlex.join(self.said)

    @property
    def fewest(self) -> int:
        """Machines that will do."""
        return self.launch.fewest or self.launch.nodes

    @property
    def place(self) -> str:
        """The machines in words."""
        each = "GPU" if self.launch.device == "gpu" else "process"
        nodes, ranks = self.launch.nodes, self.launch.ranks
        plural = ("es" if each == "process" else "s") if ranks > 1 else ""
        return f"{nodes} node{'s' if nodes > 1 else ''} of {ranks} {each}{plural}"


def job_of(recipe: Recipe, said: tuple[str, ...]) -> Job:
    """The job of a recipe. Raises UserError where its ranks cannot divide the work, on all machines or the fewest."""
    launch = recipe.launch
    if launch.fewest is not None and launch.fewest > launch.nodes:
        what = f"launch.fewest = {launch.fewest} is more than launch.nodes = {launch.nodes}"
        raise UserError(what, where=str(recipe.origin("launch.fewest")), expected=f"at most {launch.nodes}")
    for word in said:
        if not word.isprintable():
            raise UserError(f"{word!r} cannot stand in a script", expected="words of one line")
    own = tuple(word for word in said if not word.startswith("launch."))
    job = Job(recipe.run.name, own, launch, recipe.run.health)
    for nodes in (launch.nodes, job.fewest):
        layout_of(recipe, nodes * launch.ranks)
    return job


def told(command: Sequence[str]) -> str:
    """What a scheduler's own tool prints. Raises UserError where it is not here, MachineError where it refuses."""
    if shutil.which(command[0]) is None:
        expected = "a machine of the cluster, or no --submit and the job taken there"
        raise UserError(f"there is no {command[0]} on the PATH", expected=expected)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MachineError(f"{command[0]}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout.strip()
