"""Ordeal: what README shows is what its commands print; its recipe reads; blocks that cannot run are counted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.recipe.read import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN_AT_MOST = 1
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?```(console|toml|python)\n(.*?)```", re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for skipped, kind, text in BLOCK.findall(page.read_text()):
        if kind == "python" and not skipped:
            exec(compile(text, page.name, "exec"), names)
        if kind == "toml" and text.startswith("# "):
            name = text.splitlines()[0].removeprefix("# ")
            Path(name).write_text(text)
            assert load(name).run.name
        elif kind == "console" and not skipped:
            for command, shown in re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", text, re.M):
                assert_shows(command, shown)


def assert_shows(command: str, shown: str) -> None:
    """Runs a `pretrain` command and finds the shown lines in what it prints, in order."""
    name, *rest = command.split()
    assert name == "pretrain", f"tests run pretrain only, not {name}"
    done = subprocess.run([sys.executable, "-m", "pretrain", *rest], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    at = 0
    for line in filter(lambda line: line.strip() != "…", shown.splitlines()):
        found = re.compile("^" + re.escape(line).replace("…", ".*") + "$", re.M).search(done.stdout, at)
        assert found, f"{command} does not print {line!r}"
        at = found.end()


def test_what_is_not_run_does_not_grow() -> None:
    assert sum(page.read_text().count("<!-- not run:") for page in PAGES) <= NOT_RUN_AT_MOST


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_the_two_commands_are_what_make_would_do() -> None:
    for target, command in {"quickstart": "pretrain quickstart", "test": "pytest -q"}.items():
        shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert command in shown
