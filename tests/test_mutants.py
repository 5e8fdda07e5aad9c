"""Closed form: what a mutant replaces stands once in its file, so that no list of mutants outlives its code."""

from pathlib import Path

import pytest

from mutants import ROOT, mutants

FILES = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if mutants(path)]


@pytest.mark.parametrize("test", FILES, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_a_mutant_finds_its_place(test: Path) -> None:
    found = {(source, text): (ROOT / source).read_text().count(text) for source, text, _ in mutants(test)}
    assert {place: count for place, count in found.items() if count != 1} == {}
