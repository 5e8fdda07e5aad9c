"""What a recipe is made of and what was made of it: files, a corpus of the store, a run's tokenizer."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.base.files import write
from pretrain.corpus.made_of import made_of
from pretrain.corpus.sources import Digests, SourceFile, local_files, source_files
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Stage
from pretrain.events.read import all_of
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe
from pretrain.recipe.schema import Problems
from pretrain.run import tokens
from pretrain.run.store import Store
from pretrain.tokenizer import take_over


def corpus_of(name: str) -> Path:
    """The corpus' folder in the store. Raises UserError where there is none, or not yet."""
    folder = Path(name)
    if (folder / "parts.json").is_file():
        return folder.absolute()
    if folder.is_dir() and not (folder / "recipe.toml").is_file():
        raise UserError("no corpus", where=name, expected="a recipe, a run directory, or a store/corpus-… folder")
    store = RunDirectory(folder.absolute()).store if folder.is_dir() else Path("store").absolute()
    return corpus_made_by(load(name), name, store)


def tokenizer_of(name: str) -> str:
    """Where the tokenizer of a run lies, the one that it used last; any other path as it is. Raises UserError."""
    run = RunDirectory(Path(name).absolute())
    if not run.recipe.is_file():
        return name
    used = [event.folder for event in all_of(run, Stage) if event.name == "tokenizer" and event.folder]
    if not used or not Path(used[-1]).is_dir():
        expected = f"`pretrain run {name} --to tokenizer` first"
        raise UserError("its tokenizer is not made yet", where=name, expected=expected)
    return used[-1]


def inputs(recipe: Recipe) -> None:
    """Raises RecipeError with all that a recipe names on this machine and that is not there, or not what it says."""
    problems, section, shards = Problems(), recipe.tokenizer, recipe.tokens.from_

    def there(look: Callable[[], object]) -> None:
        try:
            look()
        except UserError as error:
            problems.found.append(error)

    for source in recipe.corpus.sources if shards is None else ():
        there(partial(local_files, source))
    if shards is not None and "://" not in shards:
        there(partial(tokens.sources_at, shards))
    if (given := section.from_) is not None:
        said = "tokenizer.split" in recipe.layers.origins
        there(lambda: take_over.fits(given, split=section.split if said else None, specials=section.specials))
    problems.stop()


def files_of(recipe: Recipe, store: Store, *, keep: bool) -> dict[str, list[SourceFile]]:
    """The files of each source; their digests are known from the last time, and with `keep` remembered in the store."""
    path = store.root / "digests.json"
    try:
        digests = Digests(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        digests = Digests()
    files = {source.name: source_files(source, digests) for source in recipe.corpus.sources}
    if keep and digests.learned:
        with store.alone("digests", {}):
            write(path, json.dumps(digests.known, ensure_ascii=False))
    return files


def corpus_made_by(recipe: Recipe, name: str, store: Path) -> Path:
    """The corpus that a recipe makes in a store. Raises UserError where it is not made yet."""
    files = files_of(recipe, Store(store), keep=store.is_dir())
    found = Store(store).find("corpus", made_of(recipe.corpus, files, recipe.run.seed))
    if found is None:
        raise UserError("its corpus is not made yet", where=name, expected=f"`pretrain run {name} --to corpus` first")
    return found
