"""What lies where in a run directory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<name>/`: all that a run leaves behind, but for the stage outputs in the store that runs share."""

    path: Path

    @property
    def store(self) -> Path:
        """The stage outputs that runs share: beside `runs/`, also for the runs of a group in `runs/<group>/<name>`."""
        folder = self.path.parent.parent
        return (folder.parent if folder.name == "runs" else folder) / "store"

    @property
    def recipe(self) -> Path:
        """The resolved recipe, every default written out."""
        return self.path / "recipe.toml"

    @property
    def origins(self) -> Path:
        """Where each value of the recipe was said."""
        return self.path / "origins.json"

    @property
    def versions(self) -> Path:
        """Python, packages and machine of the latest start."""
        return self.path / "versions.json"

    @property
    def stages(self) -> Path:
        """What each stage was made of, and the store folders that were used."""
        return self.path / "stages.json"

    @property
    def events(self) -> Path:
        """The folder of the event log, a file a rank."""
        return self.path / "events"

    @property
    def hangs(self) -> Path:
        """Where each rank stood when steps came no more, a folder for each time."""
        return self.path / "hangs"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def unhealthy(self) -> Path:
        """Hosts that a health check named, each with why: a launched job leaves them out until their lines are gone."""
        return self.path / "unhealthy"

    @property
    def logs(self) -> Path:
        """What the nodes of a launched job printed, and the job itself."""
        return self.path / "logs"

    @property
    def release(self) -> Path:
        """The released model."""
        return self.path / "release"

    @property
    def exports(self) -> Path:
        """Checkpoints that `pretrain export` wrote as released folders."""
        return self.path / "exports"
