"""The prose in Python files: docstrings of modules, classes and functions, found without running anything."""

import ast
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from pretrain.base.files import digest
from pretrain.corpus.document import Document, Flaw
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Docstrings:
    """A document a file: its docstrings of at least `min_words` words, in order."""

    min_words: int = 8

    def read(self, file: SourceFile, source: str) -> Iterator[Document | Flaw]:
        """One document, or a flaw where the file does not parse or says nothing."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the file's own literals are warned of
                tree = ast.parse(file.path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            yield Flaw(file.url, "no Python")
            return
        said = [text for node in ast.walk(tree) if (text := _docstring(node)) and len(text.split()) >= self.min_words]
        if not said:
            yield Flaw(file.url, "no docstrings")
            return
        identity = digest(f"{file.digest} {file.url} docstrings".encode())
        yield Document(identity, source, file.url, "\n\n".join(said) + "\n")


def _docstring(node: ast.AST) -> str | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        return inspect.cleandoc(text) if text else None
    return None
