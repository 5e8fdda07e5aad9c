"""Stage outputs by what went into them: `store/<stage>-<digest>/`, whole or absent, shared by all runs."""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pretrain.base.errors import DamagedError
from pretrain.base.files import digest_of, new_folder, verify, write

KEY = "key.json"  # what a folder was made of, in its own words
DIGITS = 16  # of a digest in a folder's name

Key = Mapping[str, object]  # settings, digests of inputs, and the integer version of the stage's code


@dataclass(frozen=True)
class Store:
    """The folder that runs share."""

    root: Path

    def folder(self, name: str, key: Key) -> Path:
        """Where an output with this key lies, made or not; `name` is a stage's, or "tokens/web" for a source's part."""
        return self.root / f"{name.partition('/')[0]}-{digest_of(key)[:DIGITS]}"

    def find(self, name: str, key: Key) -> Path | None:
        """The output, if it is there and every file has its size; digests are read where the content is used."""
        folder = self.folder(name, key)
        try:
            verify(folder, content=False)
        except DamagedError:
            return None
        return folder

    @contextmanager
    def alone(self, name: str, key: Key) -> Iterator[None]:
        """Waits until no other process makes this output; the system lets go of it when a process is killed."""
        path = self.root / f".{self.folder(name, key).name}.lock"
        self.root.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink == 0:
                    continue  # the one before us took it away
                try:
                    yield
                finally:
                    path.unlink()
                return

    @contextmanager
    def make(self, name: str, key: Key) -> Iterator[Path]:
        """A partial folder to fill, which becomes the output when the block ends well."""
        with new_folder(self.folder(name, key)) as partial:
            yield partial
            write(partial / KEY, json.dumps({"name": name, "key": key}, indent=1, sort_keys=True, ensure_ascii=False))

    def why(self, name: str, key: Key, before: Path | None) -> str:
        """Why an output is not there: what differs from the one `before`, which the run used last."""
        if self.folder(name, key).exists():
            return "its folder is damaged"
        if before is None or not (before / KEY).exists():
            return "nothing is there yet"
        return difference(json.loads((before / KEY).read_text())["key"], key)

    def differs_only_in(self, name: str, folder: Path, key: Key) -> bool:
        """Whether a whole output of the store was made of `key`, but for one of its entries."""
        if not (folder / KEY).exists():
            return False
        made = json.loads((folder / KEY).read_text())["key"]
        return {**made, name: None} == {**json.loads(json.dumps(key)), name: None}


def difference(old: Key, new: Key, paths: Collection[str] | None = None) -> str:
    """What changed between two keys, at `paths` or anywhere: `settings.vocab_size 2048 -> 4096, inputs.code`."""
    before, after = (dict(flatten(_by_use(key) if paths is None else key)) for key in (old, new))
    words = []
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one == other or (paths is not None and path not in paths):
            continue
        short = all(value is None or len(str(value)) < 24 for value in (one, other))
        words.append(f"{path} {_word(one)} -> {_word(other)}" if short else path)
    said = ", ".join(words[:6]) or "the order of its steps"
    return f"changed: {said}" + (f" and {len(words) - 6} more" if len(words) > 6 else "")


def _by_use(value: object) -> object:
    """A tree whose lists of leaves are tables by their names, the second of one name with a number."""
    if isinstance(value, Mapping):
        return {name: _by_use(inner) for name, inner in value.items()}
    if not (isinstance(value, list | tuple) and value and all(isinstance(x, Mapping) and "use" in x for x in value)):
        return value
    uses = [str(one["use"]) for one in value]
    again = [uses[:i].count(use) for i, use in enumerate(uses)]
    return {f"{use}-{n + 1}" if n else use: one for use, n, one in zip(uses, again, value, strict=True)}


def flatten(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """(dotted path, plain value) of everything inside a tree of tables and lists."""
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else None
    )
    if items is None:
        yield path, value
        return
    for name, inner in items:
        yield from flatten(inner, f"{path}.{name}" if path else str(name))


def _word(value: object) -> str:
    return "unsaid" if value is None else str(value)
