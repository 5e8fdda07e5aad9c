"""A corpus to look at: from a folder of the store, a run directory, or a recipe whose corpus was made here."""

from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.corpus.build import made_of
from pretrain.corpus.sources import source_files
from pretrain.events.directory import RunDirectory
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe
from pretrain.run.store import Store


def corpus_of(name: str) -> Path:
    """The corpus' folder in the store. Raises UserError where there is none, or not yet."""
    folder = Path(name)
    if (folder / "parts.json").is_file():
        return folder.absolute()
    if folder.is_dir() and not (folder / "recipe.toml").is_file():
        raise UserError("no corpus", where=name, expected="a recipe, a run directory, or a store/corpus-… folder")
    store = RunDirectory(folder.absolute()).store if folder.is_dir() else Path("store").absolute()
    return corpus_made_by(load(name), name, store)


def corpus_made_by(recipe: Recipe, name: str, store: Path) -> Path:
    """The corpus that a recipe makes in a store. Raises UserError where it is not made yet."""
    files = {source.name: source_files(source) for source in recipe.corpus.sources}
    found = Store(store).find("corpus", made_of(recipe.corpus, files, recipe.run.seed))
    if found is None:
        raise UserError("its corpus is not made yet", where=name, expected=f"`pretrain run {name} --to corpus` first")
    return found
