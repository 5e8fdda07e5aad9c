"""Perplexity under an n-gram model (CCNet, Wenzek et al. 2020, arXiv 1911.00359, 4.2), by KenLM."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pretrain.base.errors import UserError
from pretrain.base.optional import extra
from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Perplexity:
    """`model` is a file of KenLM's, .arpa or binary, over lower-case words."""

    model: str = key("a model of KenLM's, .arpa or binary", path=True)
    max_perplexity: float = key("per word, of all lines", 1000.0, at_least=0)

    @cached_property
    def _model(self) -> Any:
        library = extra("kenlm", "kenlm")
        if not Path(self.model).is_file():
            raise UserError("no such file", where=self.model, expected="a model of KenLM's")
        return library.Model(self.model)

    def measure(self, document: Document) -> dict[str, float]:
        """Per word, over lines; 1 for a document without words."""
        lines = [" ".join(words) for line in document.lines if (words := line.lower().split())]
        count = sum(line.count(" ") + 2 for line in lines)  # with the end of each line
        return {"perplexity": 10 ** (-sum(map(self._model.score, lines)) / max(count, 1))}

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [Rule("perplexity", "perplexity too high", at_most=self.max_perplexity)]
