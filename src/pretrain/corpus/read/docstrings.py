"""The prose in Python files: docstrings of modules, classes and functions, found without running anything."""

import ast
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Docstrings:
    """A document a file: its docstrings of at least `min_words` words, in order."""

    min_words: int = key("words of a docstring that counts", 8, at_least=0)

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """One document, or a flaw where the file does not parse or says nothing."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the file's own literals are warned of
                tree = ast.parse(file.plain().read(LONGEST))
        except (SyntaxError, ValueError, RecursionError):
            yield Flaw(0, file.url, "no Python")
            return
        said = [text for node in ast.walk(tree) if (text := _docstring(node)) and len(text.split()) >= self.min_words]
        if not said:
            yield Flaw(0, file.url, "no docstrings")
            return
        yield Record(0, file.url, "\n\n".join(said) + "\n")


def _docstring(node: ast.AST) -> str | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        return inspect.cleandoc(text) if text else None
    return None
