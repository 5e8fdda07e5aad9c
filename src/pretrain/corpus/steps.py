"""Filters and edits over the rows of a part: one file a step, so that a changed step is the first to run again.

A row is measured until a step drops it; a seeded sample of rows, or all of them, is measured by every step.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import cast

import pyarrow as pa

from pretrain.base.errors import UserError
from pretrain.base.random import key
from pretrain.corpus.document import Document, Edit, Filter, Rule
from pretrain.corpus.parts import Account, StepFile, TableWriter, making
from pretrain.corpus.read_part import clean, documents
from pretrain.corpus.task import Journal

STATE = ("alive", "reason")  # columns of every step's file; an edit's has `text` and `language` as well, null as before
EDITED = ("text", "language")
PROBE = Document(id="0" * 32, source="", url="", text="A line to measure.\n")


@dataclass(frozen=True)
class Step:
    """A leaf that looks at one document at a time, by its name in the recipe."""

    use: str
    leaf: Filter | Edit

    @property
    def edits(self) -> bool:
        """Whether it may change the text or the language."""
        return hasattr(self.leaf, "edit")

    def apply(self, document: Document) -> tuple[Document, dict[str, float | str]]:
        """The document as it goes on, and its measures."""
        if self.edits:
            after, measures = cast(Edit, self.leaf).edit(document)
            return after, dict(measures)
        return document, dict(cast(Filter, self.leaf).measure(document))

    def schema(self) -> pa.Schema:
        """Columns of its file: the state, its measures, and what an edit changes."""
        _, measures = self.apply(PROBE)
        fields = [("alive", pa.bool_()), ("reason", pa.string())]
        fields += [(name, pa.string() if isinstance(value, str) else pa.float64()) for name, value in measures.items()]
        return pa.schema(fields + ([("text", pa.large_string()), ("language", pa.string())] if self.edits else []))


def broken(rules: Sequence[Rule], measures: dict[str, float | str]) -> str | None:
    """The reason of the first rule that does not hold."""
    return next((rule.reason for rule in rules if not rule.holds(cast(float, measures[rule.measure]))), None)


def sampled(identity: str, seed: int, share: float) -> bool:
    """Whether a row is of the sample that every step measures."""
    return key(seed, "measured", identity) < share * 2**64


@dataclass
class _Writing:
    step: Step
    rules: list[Rule]
    writer: TableWriter
    account: Account


def run_steps(
    base: StepFile,
    edited: Sequence[StepFile],
    last: StepFile | None,
    steps: Sequence[tuple[Step, StepFile]],
    sample: float,
    seed: int,
    journal: Journal,
) -> None:
    """Writes a file for each of `steps` over the rows of `base`, as the `edited` files and the `last` step left them.

    A document is made once and passes all steps, so that its words are split once. Raises UserError.
    """
    with ExitStack() as stack:
        writing = [
            _Writing(step, step.leaf.rules(), *stack.enter_context(making(file, step.schema()))) for step, file in steps
        ]
        row = 0
        for found, alive in current(base, edited, last):
            for document, lives in zip(found, alive, strict=True):
                always = document is not None and sampled(document.id, seed, sample)
                _pass(document if lives or always else None, lives, writing, row, journal, always=always)
                row += 1


def _pass(
    document: Document | None, alive: bool, writing: list[_Writing], row: int, journal: Journal, *, always: bool
) -> None:
    """A document through all steps, or until one drops it; None is a row that nobody measures any more."""
    for number, one in enumerate(writing):
        values: dict[str, object] = {"alive": False, "reason": None}
        one.account.rows_in += alive
        one.account.bytes_in += len(document.text.encode()) if alive and document else 0
        if document is not None:
            start = time.process_time()
            before = document
            document, reason, said = _measured(before, one, row, number, journal)
            values |= said
            one.account.changed += alive and (document.text, document.language) != (before.text, before.language)
            if alive and document.language != before.language:
                one.account.languages[document.language] += 1
            if alive and reason is not None:
                one.account.reasons[reason] += 1
                values["reason"] = reason
            alive = alive and reason is None
            one.account.cpu_seconds += time.process_time() - start
        values["alive"] = alive
        one.account.rows_out += alive
        one.account.bytes_out += len(document.text.encode()) if alive and document else 0
        one.writer.add(values)
        if not alive and not always:
            document = None


def _measured(
    document: Document, one: _Writing, row: int, number: int, journal: Journal
) -> tuple[Document, str | None, dict[str, object]]:
    if not journal.at(row, number):
        return document, f"its worker died in {one.step.use}", {}
    try:
        after, measures = one.step.apply(document)
    except UserError:
        raise
    except Exception as error:  # a hostile document takes itself down, no other
        return document, f"{type(error).__name__} in {one.step.use}", {}
    said: dict[str, object] = dict(measures)
    reason = broken(one.rules, measures)
    if after is not document:
        after = replace(after, text=clean(after.text)) if after.text != document.text else after
        said["text"] = after.text if after.text != document.text else None
        said["language"] = after.language if after.language != document.language else None
        if reason is None and not after.text.strip():
            reason = "nothing left"
    return after, reason, said


def current(
    base: StepFile, edited: Sequence[StepFile], last: StepFile | None
) -> Iterator[tuple[list[Document | None], list[bool]]]:
    """Documents of a part as the steps so far left them, BATCH rows at a time, and which of them are still in."""
    changes = [file.batches(EDITED) for file in edited]
    states = last.batches(["alive"]) if last is not None else None
    for found in documents(base):
        for change in changes:
            rows = next(change).to_pylist()
            for i, (document, row) in enumerate(zip(found, rows, strict=True)):
                said = {name: value for name, value in row.items() if value is not None}
                if document is not None and said:
                    found[i] = replace(document, **said)
        yield found, next(states)["alive"].to_pylist() if states else [document is not None for document in found]
