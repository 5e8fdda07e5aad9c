"""[corpus]: which records become documents, and which documents a run keeps."""

from dataclasses import dataclass

from pretrain.recipe.schema import Leaf, key, leaf_key, leaves_key


@dataclass(frozen=True)
class Source:
    """[[corpus.sources]]: files of one kind; the keys of its reader stand beside these."""

    name: str = key("a name for it, used in folders and reports")
    reader: Leaf = leaf_key("how its files are read: text, jsonl, parquet …", "corpus.read", by="read", rest=True)
    paths: tuple[str, ...] = key(
        "globs, relative to the recipe's file; {stdlib} and {packages} are folders of this Python", (), path=True
    )
    exclude: tuple[str, ...] = key("globs of files to leave out", ())
    weight: float = key("its share of the training tokens, in relation to the other sources'", 1.0, at_least=0)
    license: str | None = key("the licence of its documents, where one holds for all", None)


@dataclass(frozen=True)
class Corpus:
    """[corpus]: raw records to documents to a cut."""

    sources: tuple[Source, ...] = key("where documents come from", ())
    steps: tuple[Leaf, ...] = leaves_key("filters and de-duplication, in order", "corpus.filters", "corpus.dedup")
    held_out: float = key("share of the duplicate clusters kept apart for evaluation", 0.01, at_least=0, at_most=0.5)
