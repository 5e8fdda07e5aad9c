"""What may change while a run goes on, and what makes it another run."""

from collections.abc import Sequence

from pretrain.run.store import Key, flatten

LENGTH = ("train.steps", "train.tokens", "train.seconds")
MID_RUN = (
    *LENGTH,
    *(
        f"train.{name}"
        for name in ("batch", "micro_batch", "mixture_temperature", "precision", "compile", "clip", "z_loss")
    ),
)
MID_RUN_TABLES = tuple(f"train.{name}." for name in ("balance", "higher", "schedule", "phases", "optimizer", "guard"))
MID_RUN_TABLES += ("sources.", "most_epochs.")


def changed_paths(old: Key, new: Key) -> list[str]:
    """Dotted paths whose values differ."""
    before, after = dict(flatten(old)), dict(flatten(new))
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def nearest_key(olds: Sequence[Key], new: Key) -> Key:
    """The one that differs least: a run is known as its recipe said it and as it settled it."""
    return min(olds, key=lambda old: len(changed_paths(old, new)))


def may_change(path: str, old: Key, new: Key) -> bool:
    """Whether a run goes on over this: length, batch, mixture, schedule, rates; a source's tokens come or go whole."""
    if path.startswith("tokens."):
        name = path.removeprefix("tokens.")
        return not (name in old["tokens"] and name in new["tokens"])  # type: ignore[operator]
    return path in MID_RUN or (path.startswith(MID_RUN_TABLES) and path != "train.optimizer.use")
