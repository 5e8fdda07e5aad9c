"""Closed form: what a paper's source says, with its macros; folders, archives; hostile macros end."""

import io
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.sources import SourceFile

MUTANTS = [
    ("src/pretrain/corpus/macros.py", "while found and (found[1] not in macros or left <= 0)", "while found"),
    ("src/pretrain/corpus/read/latex.py", "and not path.is_symlink()", ""),
    ("src/pretrain/corpus/macros.py", "len(text) - start if end < 0 else 0", "0"),
]
latex = find("corpus.read", "latex")
DATA = Path(__file__).parents[3] / "shared" / "data" / "latex"
PAPER = r"""
\documentclass{article}
\newcommand{\R}{\mathbb{R}}
\newcommand{\pair}[2][0]{(#1, #2)}
\def\hello#1{Hello #1}
\DeclareMathOperator{\tr}{tr}
\title{On \textbf{things}}
\begin{document}
\maketitle
\begin{abstract}We say it shortly.\end{abstract}
\section{First \emph{part}} % a comment
\hello{world}: $x \in \R$, $\pair{1}$ and \pair[2]{3}, 100\% of it~\cite{a}.
\begin{equation}\label{e} \tr(A) = 0 \end{equation}
\input{sub/two}
\begin{itemize}\item one \item[b] two\end{itemize}
\begin{table}\begin{tabular}{l|r}\hline A & B \\ 1 & 2\\ \end{tabular}\caption{Some numbers}\end{table}
Caf\'e, na\"{\i}ve, \ss.\footnote{A note.}
\begin{verbatim}
x % y {
\end{verbatim}
\input{../outside}
\input{link}
\end{document}
"""
TEXT = r"""# On things

## Abstract

We say it shortly.

## First part

Hello world: $x \in \mathbb{R}$, $(0, 1)$ and (2, 3), 100% of it. $$\operatorname{tr}(A) = 0$$ The second file.

- one
- b: two

| A | B |
| 1 | 2 |

Some numbers

Café, naïve, ß. (A note.)

```
x % y {
```
"""
FILES = {"paper.tex": PAPER, "sub/two.tex": "The second file.\n", "notes.txt": "no"}


def read(path: Path) -> Record | Flaw:
    (one,) = latex.Latex().read(SourceFile(path, path.name, 0, "0" * 32))
    return one


def folder(where: Path) -> Path:
    for name, text in FILES.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
    (where.parent / "outside.tex").write_text("NEVER")
    (where / "link.tex").symlink_to(where.parent / "outside.tex")
    return where


def archives(where: Path) -> list[Path]:
    with tarfile.open(where / "a.tar.gz", "w:gz") as tar:
        for name, text in {**FILES, "../outside.tex": "NEVER"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    with zipfile.ZipFile(where / "a.zip", "w") as archive:
        for name, text in {**FILES, "../outside.tex": "NEVER"}.items():
            archive.writestr(name, text)
    return [where / "a.tar.gz", where / "a.zip"]


def test_a_paper_from_a_folder_and_from_archives(tmp_path: Path) -> None:
    for path in (folder(tmp_path / "paper"), *archives(tmp_path)):
        found = read(path)
        assert isinstance(found, Record) and found.title == "On things"
        assert found.text == TEXT, path


CHAIN = "".join(
    rf"\def\{one}{{\{next}\{next}\{next}\{next}}}" for one, next in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)


@pytest.mark.parametrize("macros", [r"\def\a{\a\a}", r"\def\a{\b\b}\def\b{\a\a}", r"\newcommand{\a}{x\a}", CHAIN])
def test_macros_without_end_end(tmp_path: Path, macros: str) -> None:
    path = tmp_path / "a.tex"
    path.write_text(rf"{macros}\begin{{document}}Before \a after.\end{{document}}")
    found = read(path)
    assert isinstance(found, Record) and found.text is not None and found.text.startswith("Before")


HOSTILE = [
    r"$ \[ \( ", r"\section{a ", r"\begin{equation} ", r"\begin{verbatim} ", r"\begin{table}", r"\begin{tabular}{",
    r"\footnote{", r"\item[", r"\label[", r"\href{a", "$$", "{", r"\verb|a ", r"\hello{a ", r"\begin{comment}",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_source_takes_linear_time(tmp_path: Path, piece: str) -> None:
    path = tmp_path / "a.tex"
    path.write_text(r"\def\hello#1{Hello #1}" + piece * (300_000 // len(piece)))
    start = time.process_time()
    assert isinstance(read(path), Record | Flaw)
    assert time.process_time() - start < 12, "a quadratic scan of it takes minutes"


def test_references_leave_no_holes(tmp_path: Path) -> None:
    path = tmp_path / "a.tex"
    path.write_text(
        r"\begin{document}It holds (as defined in \S\ref{sec:a}), see \citet[p.~3]{knuth}~\cite{a,b}. "
        r"\emph{Type}\index{type!theory|(} theory, \ldots\end{document}"
    )
    found = read(path)
    assert isinstance(found, Record)
    assert found.text == "It holds (as defined in §[sec:a]), see [knuth]. Type theory, …\n"


@pytest.mark.skipif(not DATA.exists(), reason="needs the chapters in ../shared/data")
def test_real_chapters() -> None:
    found = read(DATA / "logic.tex")
    assert isinstance(found, Record) and found.text is not None
    assert (
        "A type $A$ is a \\emph{set}" not in found.text
        and "for all $x,y:A$ and all $p,q:x=y$, we have $p=q$" in found.text
    )
    assert not any(word in found.text for word in ("\\begin{defn}", "\\section", "\\label", "\\cite"))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="\\{}[]$%&#~ \nabdefnicglutr0123", max_size=80), st.integers(0, len(PAPER)))
def test_any_source_harms_nobody(tmp_path_factory: pytest.TempPathFactory, junk: str, place: int) -> None:
    path = tmp_path_factory.mktemp("x") / "a.tex"
    path.write_text(PAPER[:place] + junk + PAPER[place:])
    assert isinstance(read(path), Record | Flaw)
