"""[launch]: the job that `pretrain launch` writes for a scheduler; a run itself does not look here."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import seconds, size
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Launch:
    """[launch]: the machines of a job, and what their scheduler must know."""

    nodes: int = key("machines", 1, at_least=1)
    fewest: int | None = key("machines that will do, where some are missing: all, if not said", None, at_least=1)
    ranks: int = key("processes on each, one for each of its GPUs", 8, at_least=1)
    device: Literal["gpu", "cpu"] = key("what a process computes on", "gpu")
    cpus: int | None = key("cores of each machine that the job takes: all, if not said", None, at_least=1)
    memory: int | None = key("memory of each machine that the job takes: all, if not said", None, unit=size, at_least=1)
    time: float | None = key(
        "the longest that a try may take: what the scheduler allows, if not said", None, unit=seconds, at_least=300
    )
    setup: tuple[str, ...] = key("lines of shell that come first: modules, a venv, variables", ())
    partition: str | None = key("slurm: where the job queues", None)
    account: str | None = key("slurm: who pays", None)
    options: tuple[str, ...] = key('slurm: further options of sbatch, such as "--constraint=h100"', ())
    image: str | None = key("k8s: a container image that has pretrain and bash", None)
    claim: str | None = key(
        "k8s: the PersistentVolumeClaim of the folder that holds recipes, data, runs/ and store/", None
    )
