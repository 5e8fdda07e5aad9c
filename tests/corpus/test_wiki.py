"""Closed form: wikitext to text; a dump page by page; bombs, truncation and redirects."""

import bz2
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.sources import SourceFile

MUTANTS = [
    ("src/pretrain/corpus/read/wiki.py", "parser.EntityDeclHandler = pages.refuse", "pass"),
    ("src/pretrain/corpus/read/wiki.py", 'return words.rpartition("|")[2] or target', "return target"),
]
wiki = find("corpus.read", "wiki")


def page(title: str, text: str, more: str = "<ns>0</ns>") -> str:
    return (
        f"<page><title>{title}</title>{more}<id>1</id><revision><timestamp>2024-01-01T00:00:00Z</timestamp>"
        f'<text xml:space="preserve">{text}</text></revision></page>'
    )


def read(path: Path) -> list[Record | Flaw]:
    return list(wiki.Wiki().read(SourceFile(path, path.name, path.stat().st_size, "0" * 32)))


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Bold''' and ''italic''.", "Bold and italic."),
        ("[[Paris|the city]] and [[France]]s", "the city and Frances"),
        ("{{Infobox|a={{b|{{c}}}}}}Text{{cite}} here.", "Text here."),
        ("== Head ==\nx\n=== Sub ===", "## Head\nx\n### Sub"),
        ("* a\n** b\n# c", "- a\n  - b\n- c"),
        ("A<ref name=x>no [[link]]</ref> b<ref name=y/>.", "A b."),
        ("[[File:a.jpg|thumb|A [[caption]] here]]After [[Category:Things]]", "After"),
        ("[https://a.b/c the site] and <!-- none --> x", "the site and  x"),
        ("Let <math>\\frac{{a}}{b}</math> be", "Let $\\frac{{a}}{b}$ be"),
        ('{| class="w"\n|-\n! A !! B\n|-\n| 1 || align=left | 2\n|}', "| A | B |\n| 1 | 2 |"),
    ],
)
def test_wikitext(wikitext: str, text: str) -> None:
    assert wiki.plain(wikitext) == text + "\n"


@pytest.mark.parametrize("pack", [bytes, bz2.compress])
def test_a_dump(tmp_path: Path, pack: object) -> None:
    pages = [page("One", "the &lt;b&gt;first&lt;/b&gt;"), page("Two", "", "<ns>0</ns><redirect title='One'/>")]
    pages += [page("Talk:One", "hi", "<ns>1</ns>"), page("Three", "x" * 100_000)]
    path = tmp_path / "dump.xml"
    whole = f"<mediawiki>{''.join(pages)}</mediawiki>".encode()
    path.write_bytes(pack(whole))  # type: ignore[operator]
    one, two, talk, three = read(path)
    assert isinstance(one, Record) and (one.text, one.date) == ("# One\n\nthe first\n", "2024-01-01T00:00:00Z")
    assert (two, talk) == (Flaw(1, "dump.xml#Two", "redirect"), Flaw(2, "dump.xml#Talk:One", "no article"))
    assert isinstance(three, Record) and three.text is not None and len(three.text) > 100_000
    path.write_bytes(pack(whole[:-200]))  # type: ignore[operator]
    assert [one.place for one in read(path)] == [0, 1, 2, 3] and isinstance(read(path)[-1], Flaw)


def test_entities_of_its_own_are_refused(tmp_path: Path) -> None:
    lots = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 10}">' for i in range(9))
    path = tmp_path / "bomb.xml"
    few = '<!ENTITY e8 "one word">'  # expat itself stops a bomb, not this
    for own in (lots, few):
        path.write_text(f"<!DOCTYPE m [{own}]><mediawiki>{page('A', '&e8;')}</mediawiki>")
        assert [getattr(one, "reason", "") for one in read(path)] == ["damaged dump, the rest is left out"]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="[]{}|='*#<>ref/!-\n a$", max_size=120))
def test_any_wikitext_has_a_text(text: str) -> None:
    assert wiki.plain(text).endswith("\n")
    assert "[[" not in wiki.plain(f"[[a|{text.replace('[', '').replace(']', '').replace('|', '')}]]")
