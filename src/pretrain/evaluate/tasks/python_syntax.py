"""Which share of the functions that a model writes is Python, by Python's own parser."""

import ast
import warnings
from dataclasses import dataclass

from torch import nn

from pretrain.events.kinds import Score
from pretrain.generate.sample import sample
from pretrain.recipe.schema import key
from pretrain.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class PythonSyntax:
    """Samples functions and asks `ast.parse`; a function that the token limit cut is judged by its whole lines."""

    samples: int = key("functions that are sampled", 32, at_least=1)
    tokens: int = key("of each, at most", 128, at_least=1)
    temperature: float = key("0 takes the likeliest token each time", 0.7, at_least=0)
    top_k: int = key("drawn from the likeliest so many; 0: all", 40, at_least=0)
    context: str = "import os\nimport re\n\n\n"  # a file's beginning: without it, what follows is rarely a function
    prompt: str = "def"

    def score(self, model: nn.Module, tokenizer: Tokenizer, step: int, seed: int) -> Score:
        """The share, with an example of each kind."""
        start = [] if tokenizer.end is None else [tokenizer.end]
        prompt = [*start, *tokenizer.encode(self.context + self.prompt).tolist()]
        made = sample(
            model,
            prompt,
            copies=self.samples,
            tokens=self.tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            seed=seed,
            end=tokenizer.end,
        )
        functions = [first_function(self.prompt + tokenizer.decode(ids), len(ids) < self.tokens) for ids in made]
        good = [text for text in functions if parses(text)]
        bad = [text for text in functions if not parses(text)]
        detail = {"parses": good[0] if good else "", "does not": bad[0] if bad else "", "samples": self.samples}
        return Score(step, "functions that parse", len(good) / len(functions), "share", "sampled", detail)


def first_function(text: str, ended: bool) -> str:
    """A `def` and the indented lines under it; if the text was cut off inside, without its last, partial line."""
    lines = text.split("\n")
    for i, line in enumerate(lines[1:], 1):
        if line and not line[0].isspace() and not line.startswith(("#", ")")):
            return "\n".join(lines[:i]) + "\n"
    return "\n".join(lines if ended else lines[:-1]) + "\n"


def parses(text: str) -> bool:
    """Whether Python's parser accepts a text that has a function with a body."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in tree.body)
