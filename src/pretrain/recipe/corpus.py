"""[corpus]: which records become documents, and which documents a run keeps."""

from dataclasses import dataclass
from typing import Literal

from pretrain.recipe.schema import Leaf, key, leaf_key


@dataclass(frozen=True)
class Source:
    """[[corpus.sources]]: files of one kind; the keys of its reader stand beside these."""

    name: str = key("a name for it, used in folders and reports")
    reader: Leaf = leaf_key("how its files are read: text, jsonl, parquet …", "corpus.read", by="read", rest=True)
    paths: tuple[str, ...] = key(
        "globs, relative to the recipe's file; {stdlib} and {packages} are folders of this Python", (), path=True
    )
    exclude: tuple[str, ...] = key("globs of files to leave out", ())
    extract: Leaf = leaf_key("what takes the text out of payloads such as HTML", "corpus.extract", use="trafilatura")
    weight: float = key("its share of the training tokens, in relation to the other sources'", 1.0, at_least=0)
    most_epochs: float | None = key(
        "times that training may read it, not more; then its share goes to the others in proportion", None, at_least=0
    )
    license: str | None = key("the licence of its documents, where one holds for all", None)


@dataclass(frozen=True)
class CorpusStep:
    """[[corpus.steps]]: a filter, an edit or de-duplication; its own keys stand beside these."""

    leaf: Leaf = leaf_key("which: a name from those below", "corpus.filters", "corpus.edits", "corpus.dedup", rest=True)
    sources: tuple[str, ...] = key("names of the sources whose documents it looks at; none says all", ())

    def takes(self, source: str) -> bool:
        """Whether it looks at the documents of a source."""
        return not self.sources or source in self.sources


@dataclass(frozen=True)
class Corpus:
    """[corpus]: raw records to documents to a cut."""

    sources: tuple[Source, ...] = key("where documents come from", ())
    steps: tuple[CorpusStep, ...] = key("filters, edits and de-duplication, in order", ())
    held_out: float = key("share of the duplicate clusters kept apart for evaluation", 0.01, at_least=0, at_most=0.5)
    measure: Literal["until_dropped", "all"] = key(
        "whether a dropped document is measured by later steps", "until_dropped"
    )
    sample: float = key("share of the documents that all steps measure in any case", 0.01, at_least=0, at_most=1)
    dropped_text: bool = key(
        "whether the ledger holds the text of dropped documents, personal data masked where a step does so", False
    )
    most_dropped: float = key("share that a step may drop before a warning", 0.9, at_least=0, at_most=1)
    failed_share: float = key("share of parts that may be set aside after three failures", 0.0, at_least=0, at_most=1)
    engine: Leaf = leaf_key("where the work is done", "corpus.engine", use="local")
